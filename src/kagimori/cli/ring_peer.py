"""
Asks two slots what they can read of each other, and works out why not.

Rules of this module:

1. Each slot protects a challenge and opens what the other protected. What came back is compared
   with the challenge here: no slot's word is taken for it.
2. The token goes to the address that was named and nowhere else: redirects are not followed,
   and without TLS only this machine is asked, past any proxy.
3. What slots say is read with bounds.
"""

from __future__ import annotations

import enum
import os
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Protocol
from urllib.parse import urlsplit

import msgspec

from kagimori.clock import Clock, SystemClock
from kagimori.crypto.digests import b64url_decode, b64url_encode, equal
from kagimori.errors import ConfigError, StoreError
from kagimori.integrations.peer import PATH, TOKEN, Peer, PeerReport
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.settings import is_loopback

MOST_SKEW = timedelta(seconds=5)
TIMEOUT = 15.0
MOST_BYTES = 1024 * 1024

_CHALLENGE_BYTES = 32
_WORD = re.compile(r"[A-Za-z0-9_-]{43,512}")


class Slot(Protocol):
    """
    Something that answers as ``POST /.kagimori/peer`` does.
    """

    @property
    def name(self) -> str:
        """
        Say which it is, for people.
        """
        ...

    def ask(self, challenge: str, texts: Sequence[str]) -> bytes:
        """
        Return its answer to a challenge, and to texts that it is to open.

        Raises:
            StoreError: it does not answer, or refuses.
        """
        ...


class Difference(enum.Enum):
    """
    Why one slot does not read what another protected.
    """

    APPLICATION = "application"
    RING = "ring"
    WRAPPER = "wrapper"
    UNKNOWN_KEY = "unknown_key"
    REVOKED = "revoked"
    CLOCK = "clock"
    OTHER = "other"


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """
    Whether one slot reads what the other wrote.
    """

    reader: str
    writer: str
    reads: bool
    why: str | None = None
    differences: tuple[Difference, ...] = ()


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """
    What two slots showed.

    Attributes:
        skew: how many seconds the second slot's clock is ahead of the first one's, about.
        notes: what differs although each reads the other.
    """

    crossings: tuple[Crossing, ...]
    skew: float
    notes: tuple[Difference, ...] = ()

    @property
    def is_good(self) -> bool:
        """
        Whether each reads the other, and clocks agree.
        """
        return all(each.reads for each in self.crossings) and (
            Difference.CLOCK not in self.notes
        )


@dataclass(frozen=True, slots=True)
class _Said:
    report: PeerReport
    offset: timedelta


# --- slots ---------------------------------------------------------------------------------


class RemoteSlot:
    """
    A slot at an address.

    Args:
        url: of the application; the path of the endpoint is added where it is missing.
        token: what it is to be shown; left out: ``KAGIMORI_PEER_TOKEN``.

    Raises:
        ConfigError: the address is none that a token may be sent to, or there is no token.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in ("https", "http") or not host or parts.username:
            raise ConfigError(
                "A peer is named by the https address of its application.",
                hint="Such as https://green.example.com.",
            )
        if parts.scheme == "http" and not is_loopback(host):
            raise ConfigError(
                f"The token is not sent to {host} without TLS.", hint="Write https://."
            )
        self._token = token or os.environ.get(TOKEN, "")
        if not self._token:
            raise ConfigError(
                f"{TOKEN} is not set.",
                hint="Set it here to the value that the slots have.",
            )
        if not _WORD.fullmatch(self._token):
            raise ConfigError(
                f"{TOKEN} is not 256 bits as base64url.",
                hint="Set it here to the value that the slots have, without a line break.",
            )
        self.name = parts.netloc
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._url = base if base.endswith(PATH) else base + PATH

    def ask(self, challenge: str, texts: Sequence[str]) -> bytes:
        """
        Return its answer.

        Raises:
            StoreError: it does not answer, or refuses.
        """
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url,
            data=_question(challenge, texts),
            method="POST",
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
            },
        )
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if self._url.startswith("http:"):
            # A proxy of the environment would be sent the token in the clear, for localhost too.
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        try:
            with opener.open(request, timeout=TIMEOUT) as answer:
                return bytes(answer.read(MOST_BYTES + 1))
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(self.name, error.code) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise StoreError(
                f"{self.name} does not answer: {reason}.",
                hint="Check the address, and that the slot runs.",
                transient=True,
            ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: object,
        newurl: str,
    ) -> None:
        """
        Go nowhere: the redirect shows as its status.
        """


class LocalSlot:
    """
    A ring of this process, which answers as the endpoint would.
    """

    def __init__(self, ring: ProtectionRing, name: str) -> None:
        self.name = name
        self._token = secrets.token_urlsafe(32)
        self._peer = Peer(ring, token=self._token)

    def ask(self, challenge: str, texts: Sequence[str]) -> bytes:
        """
        Return its answer.

        Raises:
            StoreError: the ring cannot be used at the moment.
        """
        answer = self._peer.answer(
            "POST", f"Bearer {self._token}", _question(challenge, texts)
        )
        if answer.status != 200:
            raise _refused(self.name, answer.status)
        return answer.body


def _question(challenge: str, texts: Sequence[str]) -> bytes:
    return msgspec.json.encode({"challenge": challenge, "open": list(texts)})


_REFUSALS = {
    401: (
        "it has another token",
        "Set KAGIMORI_PEER_TOKEN to the same value everywhere.",
    ),
    404: (
        "it has no such endpoint",
        "Set KAGIMORI_PEER_TOKEN in the slot, and add the integration's peer endpoint.",
    ),
    429: (
        "it was asked too often",
        "Try again in a minute: ten requests are answered.",
    ),
    503: (
        "it cannot use its ring at the moment",
        "Its store or its vault does not answer: run `kagimori ring doctor` as that slot.",
    ),
}


def _refused(name: str, status: int) -> StoreError:
    text, hint = _REFUSALS.get(
        status, (f"it answered with status {status}", "Check the address.")
    )
    return StoreError(
        f"{name}: {text}.",
        hint=hint,
        transient=status in (429, 503),
        status=str(status),
    )


# --- comparing -----------------------------------------------------------------------------


def compare(one: Slot, two: Slot, *, clock: Clock | None = None) -> Comparison:
    """
    Let each of two slots read what the other wrote, and say what differs where it does not.

    Raises:
        StoreError: a slot does not answer, refuses, or answers something else.
    """
    now = (clock or SystemClock()).now
    challenges = [b64url_encode(secrets.token_bytes(_CHALLENGE_BYTES)) for _ in "12"]
    first = _ask(one, challenges[0], [], now)
    second = _ask(two, challenges[1], [first.report.protected], now)
    third = _ask(one, challenges[0], [second.report.protected], now)
    skew = second.offset - (first.offset + third.offset) / 2
    crossings = (
        _crossing(two.name, one.name, second.report, third.report, challenges[0]),
        _crossing(one.name, two.name, third.report, second.report, challenges[1]),
    )
    notes = [Difference.CLOCK] if abs(skew) > MOST_SKEW else []
    if all(each.reads for each in crossings):
        notes += _settings(second.report, third.report)
    return Comparison(
        crossings=crossings, skew=skew.total_seconds(), notes=tuple(notes)
    )


def _ask(
    slot: Slot, challenge: str, texts: Sequence[str], now: Callable[[], datetime]
) -> _Said:
    before = now()
    body = slot.ask(challenge, texts)
    middle = before + (now() - before) / 2
    try:
        report = msgspec.json.decode(body[:MOST_BYTES], type=PeerReport)
        there = datetime.fromisoformat(report.now)
        offset = there - middle
    except (ValueError, TypeError, OverflowError):
        raise _no_peer(slot.name) from None
    if len(report.opened) != len(texts):
        raise _no_peer(slot.name)
    return _Said(report, offset)


def _no_peer(name: str) -> StoreError:
    return StoreError(
        f"{name} answers, but not as a peer does.",
        hint="Check the address: something else may answer there.",
    )


def _crossing(
    reader: str, writer: str, read: PeerReport, wrote: PeerReport, challenge: str
) -> Crossing:
    opened = read.opened[0]
    if opened.ok and opened.payload is not None and _is_same(opened.payload, challenge):
        return Crossing(reader=reader, writer=writer, reads=True)
    return Crossing(
        reader=reader,
        writer=writer,
        reads=False,
        why=opened.why,
        differences=_differences(opened.why, read, wrote),
    )


def _is_same(payload: str, challenge: str) -> bool:
    try:
        return equal(b64url_decode(payload), b64url_decode(challenge))
    except ValueError:
        return False


def _settings(read: PeerReport, wrote: PeerReport) -> list[Difference]:
    found = []
    if read.application != wrote.application:
        found.append(Difference.APPLICATION)
    if read.ring != wrote.ring:
        found.append(Difference.RING)
    if read.wrapper != wrote.wrapper:
        found.append(Difference.WRAPPER)
    return found


def _differences(
    why: str | None, read: PeerReport, wrote: PeerReport
) -> tuple[Difference, ...]:
    """
    Say what explains that a payload does not open, the cause first.
    """
    differing = _settings(read, wrote)
    held = {key.id for key in read.keys}
    theirs = {key.id for key in wrote.keys}
    if why == "unknown-key":
        # A ring of which some keys are known is the same one, seen at another time.
        if held & theirs or Difference.RING not in differing:
            return (Difference.UNKNOWN_KEY,)
        return tuple(dict.fromkeys([Difference.RING, *differing]))
    if why == "revoked":
        return (Difference.REVOKED,)
    if why == "not-ours":
        causes = [each for each in differing if each is not Difference.RING]
        return tuple(causes) or (Difference.OTHER,)
    return tuple(differing) or (Difference.OTHER,)
