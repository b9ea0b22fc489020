"""
Live keys: what signs, and what cookies are made with.

Rules of this module:

1. A key shows nothing of itself and cannot be pickled.
2. Material is absent where it is not needed any more or could not be read. Such a key still
   verifies, by its public half; asked to sign it raises, and nothing is made in its place.
"""

from __future__ import annotations

from typing import NoReturn

from kagimori.crypto.jwk import Jwk
from kagimori.crypto.jws import Signer
from kagimori.crypto.kdf import CounterKdf
from kagimori.errors import SigningUnavailableError
from kagimori.keys.protection.algorithms import ALGORITHMS
from kagimori.keys.protection.derivation import Sealer, sealer
from kagimori.keys.protection.frame import (
    authenticated_data,
    id_bytes,
    purpose_bytes,
)
from kagimori.keys.timeline import KeyTimeline

COOKIE_ALGORITHM = "AES_256_GCM"
"""What a cookie key is for: other keys are derived from it, each for one purpose."""


class SigningKey:
    """
    A key of a signing ring.

    Args:
        id_: the kid.
        algorithm: its one algorithm.
        timeline: its times.
        public: the public half.
        private: the whole key, where this process may sign with it.
    """

    __slots__ = ("_private", "_signers", "algorithm", "id", "public", "timeline")

    def __init__(
        self,
        id_: str,
        algorithm: str,
        timeline: KeyTimeline,
        public: Jwk,
        private: Jwk | None = None,
        *,
        _signers: dict[str | None, Signer] | None = None,
    ) -> None:
        self.id = id_
        self.algorithm = algorithm
        self.timeline = timeline
        self.public = public
        self._private = private
        self._signers = {} if _signers is None else _signers

    @property
    def can_sign(self) -> bool:
        """
        Whether the private half is at hand.
        """
        return self._private is not None

    def sign(self, message: bytes) -> bytes:
        """
        Return the raw JOSE signature of a message (RFC 7515 section 5.1, step 5).

        Raises:
            SigningUnavailableError: the private half is not at hand.
        """
        return self._key().sign(message, self.algorithm)

    def jws_signer(self, typ: str | None = None) -> Signer:
        """
        Return what signs compact JWS with this key, made once for each ``typ``.

        Raises:
            SigningUnavailableError: the private half is not at hand.
        """
        signer = self._signers.get(typ)
        if signer is None:
            signer = self._signers[typ] = Signer(self._key(), typ=typ)
        return signer

    def with_timeline(self, timeline: KeyTimeline) -> SigningKey:
        """
        Return the same key with other times.
        """
        return SigningKey(
            self.id,
            self.algorithm,
            timeline,
            self.public,
            self._private,
            _signers=self._signers,
        )

    def _key(self) -> Jwk:
        if self._private is None:
            raise SigningUnavailableError(
                f"The signing key {self.id} cannot be used by this server.",
                hint="`kagimori doctor` says why.",
                kid=self.id,
            )
        return self._private

    def __repr__(self) -> str:
        return f"<SigningKey {self.id!r} {self.algorithm}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled")


class CookieKey:
    """
    A key of a cookie ring: a protection key of the tenant's own, 64 random bytes.

    Args:
        id_: the key's id, a GUID, carried by each cookie.
        timeline: its times.
        secret: the material, where it could be read.
    """

    __slots__ = ("_secret", "id", "timeline")

    algorithm = COOKIE_ALGORITHM

    def __init__(
        self, id_: str, timeline: KeyTimeline, secret: bytes | None = None
    ) -> None:
        self.id = id_
        self.timeline = timeline
        self._secret = secret

    @property
    def is_readable(self) -> bool:
        """
        Whether the material is at hand.
        """
        return self._secret is not None

    def sealer(self, *purposes: str) -> Sealer:
        """
        Return what seals and opens cookies of one chain of purposes.

        They have the frame of protected payloads, so each carries the key's id
        (`aspnet-data-protection.md` 1.1).

        Raises:
            SigningUnavailableError: the material is not at hand.
        """
        if self._secret is None:
            raise SigningUnavailableError(
                f"The cookie key {self.id} cannot be used by this server.",
                hint="`kagimori doctor` says why.",
                kid=self.id,
            )
        raw = id_bytes(self.id)
        aad = authenticated_data(raw, [purpose_bytes(purpose) for purpose in purposes])
        row = ALGORITHMS[COOKIE_ALGORITHM]
        return sealer(CounterKdf(self._secret), row, raw, aad)

    def with_timeline(self, timeline: KeyTimeline) -> CookieKey:
        """
        Return the same key with other times.
        """
        return CookieKey(self.id, timeline, self._secret)

    def __repr__(self) -> str:
        return f"<CookieKey {self.id!r}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled")
