"""
The rings of one tenant as a process serves them: immutable, in memory, without I/O.

Rules of this module:

1. What a request needs (the key that signs, the verifying set, the JWKS) is built once for
   each stretch of time in which no key changes its state, never per request.
2. Every published key stays published whatever became of its private half.
3. A key whose private half cannot be read stays current: nothing else takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic

import msgspec

from kagimori.crypto.digests import b64url_encode, sha256
from kagimori.crypto.jwk import JwkSet
from kagimori.errors import KagimoriError
from kagimori.keys.key import CookieKey, SigningKey
from kagimori.keys.lineup import K
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.ring import KeyRing
from kagimori.keys.schedule import jwks_max_age
from kagimori.keys.timeline import KeyState

_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class JwksDocument:
    """
    The JWKS as it is served.

    Attributes:
        body: the JSON text.
        etag: its strong validator, quotes included (RFC 9110 section 8.8.3).
        max_age: for how many seconds it may be kept.
    """

    body: bytes
    etag: str
    max_age: int


@dataclass(frozen=True, slots=True)
class SigningView:
    """
    What holds from `begins` on and before `ends`.

    Attributes:
        signers: the current keys by algorithm; under ``None`` the default's.
        verifying: the published keys.
        known: published keys and retired ones, for hints and for the audit.
        body: the JWKS.
        etag: its validator.
        algorithms: those that can be signed with, the default first.
    """

    begins: datetime
    ends: datetime
    signers: Mapping[str | None, SigningKey]
    verifying: JwkSet
    known: JwkSet
    body: bytes
    etag: str
    algorithms: tuple[str, ...]

    @classmethod
    def at(cls, ring: KeyRing[SigningKey], now: datetime) -> SigningView:
        """
        Return the view of a ring at `now`.
        """
        algorithms = ring.algorithms(now)
        signers: dict[str | None, SigningKey] = {}
        for name in (None, *algorithms):
            key = ring.current(now, name)
            if key is not None:
                signers[name] = key
        published = [key.public for key in ring.verifying(now)]
        retired = [
            key.public for key in ring if ring.state(key, now) is KeyState.RETIRED
        ]
        body = msgspec.json.encode({"keys": [key.to_dict() for key in published]})
        turns = [time for key in ring for time in key.timeline.turns()]
        return cls(
            begins=max((time for time in turns if time <= now), default=_ALWAYS),
            ends=min((time for time in turns if time > now), default=_NEVER),
            signers=signers,
            verifying=JwkSet.of(published),
            known=JwkSet.of(published + retired),
            body=body,
            etag=f'"{b64url_encode(sha256(body))}"',
            algorithms=algorithms,
        )


@dataclass(frozen=True, slots=True)
class LiveRing(Generic[K]):
    """
    One stored ring with its material.

    Attributes:
        version: the version of the document that it was read from.
        ring: the keys.
        policy: how they turn.
        unreadable: by kid, why a private half that is still needed cannot be used.
        under: by kid, the protection key under which its private half lies.
    """

    version: int
    ring: KeyRing[K]
    policy: RotationPolicy
    unreadable: Mapping[str, KagimoriError] = field(default_factory=dict)
    under: Mapping[str, str] = field(default_factory=dict)


class TenantKeys:
    """
    All that a process holds of one tenant's keys.
    """

    __slots__ = ("_view", "cookie", "signing")

    def __init__(
        self, signing: LiveRing[SigningKey], cookie: LiveRing[CookieKey] | None
    ) -> None:
        self.signing = signing
        self.cookie = cookie
        self._view: SigningView | None = None

    def view(self, now: datetime) -> SigningView:
        """
        Return what holds at `now`.
        """
        view = self._view
        if view is None or not view.begins <= now < view.ends:
            view = self._view = SigningView.at(self.signing.ring, now)
        return view

    def jwks(self, now: datetime) -> JwksDocument:
        """
        Return the JWKS at `now`.
        """
        view = self.view(now)
        age = jwks_max_age(self.signing.ring, self.signing.policy, now)
        return JwksDocument(view.body, view.etag, age)

    def problem(self, now: datetime) -> KagimoriError | None:
        """
        Return why a current key cannot sign, ``None`` if all can.
        """
        unreadable = self.signing.unreadable
        for key in self.view(now).signers.values():
            if key.id in unreadable:
                return unreadable[key.id]
        if self.cookie is not None and self.cookie.unreadable:
            current = self.cookie.ring.current(now)
            return self.cookie.unreadable.get(current.id) if current else None
        return None
