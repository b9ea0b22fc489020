"""
How a slot proves what it can read: the answer to ``POST /.kagimori/peer``.

``kagimori ring doctor --peer URL`` asks each slot to protect a challenge and to open what the
others protected, and works the difference out of their answers.

Rules of this module:

1. Off unless ``KAGIMORI_PEER_TOKEN`` holds 256 bits; then only its bearer is answered. Without
   it the address does not exist.
2. One fixed purpose: the endpoint opens nothing that an application protected, and protects
   nothing that an application opens.
3. Small bodies, 64 bytes a payload, ten requests a minute in each process.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

import kagimori
from kagimori.clock import Clock, SystemClock
from kagimori.crypto.digests import b64url_decode, b64url_encode, equal, sha256
from kagimori.errors import (
    ConfigError,
    KagimoriError,
    ProtectionError,
    UnknownKeyIdError,
)
from kagimori.keys.protection import frame
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.timeline import KeyState

PATH = "/.kagimori/peer"
PURPOSE = "kagimori.peer.v1"
TOKEN = "KAGIMORI_PEER_TOKEN"
MOST_BODY = 16 * 1024

_MOST_PAYLOAD = 64
_WINDOW = timedelta(minutes=1)
_MOST_IN_WINDOW = 10
_RETRY_AFTER = 5
# 32 bytes in base64url without padding are 43 characters.
_WORD = re.compile(r"[A-Za-z0-9_-]{43,512}")


class _Question(msgspec.Struct, forbid_unknown_fields=True):
    challenge: Annotated[str, msgspec.Meta(max_length=128)]
    open: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=2048)]], msgspec.Meta(max_length=4)
    ] = []


class Opened(msgspec.Struct, frozen=True):
    """
    What became of a payload that another slot protected.

    Attributes:
        payload: base64url.
        why: ``unknown-key``, ``not-ours`` or ``revoked``, where it did not open.
    """

    ok: bool
    payload: str | None
    why: str | None


class PeerKey(msgspec.Struct, frozen=True):
    """
    A key that a slot holds.
    """

    id: str
    algorithm: str
    state: str


class PeerReport(msgspec.Struct, frozen=True):
    """
    What a slot says of itself.

    Attributes:
        protected: the challenge under the fixed purpose.
        now: RFC 3339, by the machine's clock.
        application: SHA-256 of the application's name, in hex; of nothing for no name.
        ring: SHA-256 of the ring's place, in hex.
    """

    protected: str
    opened: list[Opened]
    now: str
    application: str
    ring: str
    wrapper: str
    keys: list[PeerKey]
    version: str


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """
    A response, for any framework. It is never stored by caches.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class Peer:
    """
    Answers for one ring. Safe to share between threads.

    Args:
        token: what the asker has to bear; left out: ``KAGIMORI_PEER_TOKEN``; none: off.
        clock: the machine's.

    Raises:
        ConfigError: the token is no 43 characters of base64url or more.
    """

    def __init__(
        self,
        ring: ProtectionRing,
        *,
        token: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._token = os.environ.get(TOKEN, "") if token is None else token
        if self._token and not _WORD.fullmatch(self._token):
            raise ConfigError(
                f"{TOKEN} is not 256 bits as base64url.",
                hint="Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        self._ring = ring
        self._clock = clock or SystemClock()
        self._protector = ring.protector(PURPOSE)
        self._asked: deque[datetime] = deque(maxlen=_MOST_IN_WINDOW)
        self._lock = threading.Lock()

    @property
    def is_on(self) -> bool:
        """
        Whether there is a token, and so an endpoint.
        """
        return bool(self._token)

    def answer(self, method: str, authorization: str | None, body: bytes) -> PeerAnswer:
        """
        Return the response to a request.

        Args:
            authorization: the header of this name.
            body: up to `MOST_BODY` bytes; more is refused, so one more is enough to read.
        """
        if not self._token:
            return _refusal(404)
        if method != "POST":
            return _refusal(405, Allow="POST")
        if not equal(authorization or "", f"Bearer {self._token}"):
            return _refusal(401, **{"WWW-Authenticate": "Bearer"})
        wait = self._wait()
        if wait:
            return _refusal(429, **{"Retry-After": str(wait)})
        if len(body) > MOST_BODY:
            return _refusal(413)
        try:
            question = msgspec.json.decode(body, type=_Question)
            challenge = b64url_decode(question.challenge)
        except ValueError:
            return _refusal(400)
        if not 0 < len(challenge) <= _MOST_PAYLOAD:
            return _refusal(400)
        try:
            report = self._report(challenge, question.open)
        except KagimoriError:
            return _refusal(503, **{"Retry-After": str(_RETRY_AFTER)})
        return PeerAnswer(
            200, msgspec.json.encode(report), _headers("application/json")
        )

    def _wait(self) -> int:
        """
        Return the seconds until the next request is answered; 0 counts this one.
        """
        now = self._clock.now()
        with self._lock:
            if len(self._asked) == _MOST_IN_WINDOW:
                passed = now - self._asked[0]
                # A clock that was set back must not close the endpoint for as long.
                if timedelta() <= passed < _WINDOW:
                    return max(1, int((_WINDOW - passed).total_seconds()))
            self._asked.append(now)
        return 0

    def _report(self, challenge: bytes, texts: list[str]) -> PeerReport:
        ring = self._ring
        opened = [self._open(text) for text in texts]
        # Afterwards: opening may have made the ring look for a key.
        views = ring.keys()
        keys = [PeerKey(key.id, key.algorithm, key.state.value) for key in views]
        return PeerReport(
            protected=self._protector.protect(challenge),
            opened=opened,
            now=self._clock.now().isoformat(),
            application=sha256((ring.application or "").encode()).hex(),
            ring=sha256(ring.location_name.encode()).hex(),
            wrapper=ring.wrapper_name,
            keys=keys,
            version=kagimori.__version__,
        )

    def _open(self, text: str) -> Opened:
        try:
            payload = self._protector.unprotect(text).payload
        except ProtectionError as error:
            if error.transient:
                raise
            return Opened(ok=False, payload=None, why=self._why(error, text))
        if len(payload) > _MOST_PAYLOAD:
            return Opened(ok=False, payload=None, why="not-ours")
        return Opened(ok=True, payload=b64url_encode(payload), why=None)

    def _why(self, error: ProtectionError, text: str) -> str:
        if isinstance(error, UnknownKeyIdError):
            return "unknown-key"
        try:
            data = frame.from_text(text)
            frame.check(data)
        except ProtectionError:
            return "not-ours"
        key_id = frame.id_text(data[len(frame.MAGIC) : frame.HEADER_BYTES])
        views = self._ring.keys()
        revoked = {key.id for key in views if key.state is KeyState.REVOKED}
        return "revoked" if key_id in revoked else "not-ours"


def _headers(content_type: str, **more: str) -> dict[str, str]:
    return {"Content-Type": content_type, "Cache-Control": "no-store", **more}


def _refusal(status: int, **headers: str) -> PeerAnswer:
    return PeerAnswer(status, b"", _headers("text/plain; charset=utf-8", **headers))
