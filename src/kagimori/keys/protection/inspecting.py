"""
What can be told of a protected payload, and why it does not open.

Rules of this module:

1. Nothing of what was protected is shown, nor whether a guess about it is near.
2. Key known and tag wrong has three possible reasons that nobody can tell apart: other
   purposes, another application, or an altered payload. All three are said.
3. What is said here is for the operator, never for whoever sent the payload.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kagimori.crypto.aead import NONCE_BYTES, TAG_BYTES
from kagimori.errors import (
    ConfigError,
    KagimoriError,
    PayloadExpiredError,
    ProtectionError,
    UnknownKeyIdError,
)
from kagimori.keys.protection import frame, ticks
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.derivation import MODIFIER_BYTES
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.protector import Protector, split_expiry
from kagimori.keys.timeline import KeyState, rfc3339

if TYPE_CHECKING:
    from kagimori.keys.protection.ring import ProtectionRing

_MAGIC_TEXT = "CfDJ8"
_CHUNKS = "chunks-"
_CUT = "Look for what cut it: a column's width, a cookie's limit, a lost chunk."


class Verdict(enum.Enum):
    """
    What became of a payload.
    """

    OPENS = "opens"
    KEY_KNOWN = "key-known"
    """Its key is there; without purposes nothing more was tried."""

    NOT_A_PAYLOAD = "not-a-payload"
    NEWER_FORMAT = "newer-format"
    CUT_SHORT = "cut-short"
    UNKNOWN_KEY = "unknown-key"
    UNREADABLE_KEY = "unreadable-key"
    REVOKED = "revoked"
    NOT_OURS = "not-ours"
    """Its key is there and its tag is wrong (rule 2)."""

    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Inspection:
    """
    What can be told of a payload.

    Attributes:
        verdict: what became of it.
        text: the same as a sentence for the operator.
        hint: what to do about it; empty where nothing is to do.
        length: of the payload, in bytes; 0 where it is none.
        key_id: the key that it names; ``None`` where it is no payload.
        algorithm: of that key, where the ring holds it.
        state: of that key at the time of asking.
        activates: when that key began to protect, or will.
        due: when it should stop protecting.
        made_after: the payload was made after this: then its key was made.
        made_before: and before this, if its maker followed the ring (a .NET node may be a day
            late); ``None`` while the key protects.
        age_at_least: how old the payload is at the time of asking; ``None`` while its key
            protects.
        age_at_most: and how old it can be.
        is_time_limited: whether it carries an expiry, known only where it opens.
        expires: that expiry; ``None`` where there is none.
    """

    verdict: Verdict
    text: str
    hint: str = ""
    length: int = 0
    key_id: str | None = None
    algorithm: str | None = None
    state: KeyState | None = None
    activates: datetime | None = None
    due: datetime | None = None
    made_after: datetime | None = None
    made_before: datetime | None = None
    age_at_least: timedelta | None = None
    age_at_most: timedelta | None = None
    is_time_limited: bool = False
    expires: datetime | None = None

    @property
    def is_known(self) -> bool:
        """
        Whether the ring holds the payload's key.
        """
        return self.algorithm is not None


# --- inspecting ----------------------------------------------------------------------------


def inspect(
    ring: ProtectionRing,
    payload_text: str,
    *,
    purposes: tuple[str, ...] | None = None,
    now: datetime | None = None,
) -> Inspection:
    """
    Say what a payload is, which key it names, and why it does not open.

    Args:
        payload_text: the text form, as it lies in a cookie or a database.
        purposes: what it was protected for, without the application; left out, nothing is
            opened. A time-limited payload is recognised by itself.
        now: the time of asking; the ring's where it is left out.

    Raises:
        ConfigError: `purposes` is empty, or one of them is no text or no valid Unicode.
        KeyRingError: the ring was closed.
    """
    if purposes is not None and not purposes:
        raise ConfigError("Name at least one purpose, or none at all.")
    payload_text = payload_text.strip()
    data = None
    try:
        data = frame.from_text(payload_text)
        frame.check(data)
    except ProtectionError:
        return _no_payload(payload_text, data)
    at = now or ring.now()
    key_id = frame.id_text(data[4 : frame.HEADER_BYTES])
    try:
        key, _ = ring._live.opening_key(data[4 : frame.HEADER_BYTES])
    except UnknownKeyIdError as error:
        found = _unknown(ring, error)
        return replace(found, length=len(data), key_id=key_id)
    return _of_key(_tried(ring, key, data, purposes), key, ring, at, len(data))


def _of_key(
    found: Inspection,
    key: ProtectionKey,
    ring: ProtectionRing,
    now: datetime,
    length: int,
) -> Inspection:
    timeline = key.timeline
    made_before = timeline.retires
    if timeline.revoked is not None:
        made_before = min(timeline.revoked, made_before or timeline.revoked)
    if made_before is not None and made_before > now:
        made_before = None
    return replace(
        found,
        length=length,
        key_id=key.id,
        algorithm=key.algorithm,
        state=ring._live.contents.state_of(key, now),
        activates=timeline.activates,
        due=timeline.due,
        made_after=timeline.created,
        made_before=made_before,
        age_at_least=None if made_before is None else now - made_before,
        age_at_most=now - timeline.created,
    )


def _no_payload(text: str, data: bytes | None) -> Inspection:
    verdict, why, hint = _what_else(text, data)
    return Inspection(verdict, why, hint, length=len(data or b""))


def _what_else(text: str, data: bytes | None) -> tuple[Verdict, str, str]:
    if text.startswith(_CHUNKS):
        return (
            Verdict.NOT_A_PAYLOAD,
            "This is the head of a cookie in chunks, not a payload.",
            "Join the texts of the cookies NAMEC1, NAMEC2 and so on, and inspect that.",
        )
    if not text.startswith(_MAGIC_TEXT):
        return (
            Verdict.NOT_A_PAYLOAD,
            "This was not protected in the format of ASP.NET Core Data Protection.",
            f"Such payloads begin with {_MAGIC_TEXT}; the first chunk of a cookie does too.",
        )
    if data is None:
        return (
            Verdict.NOT_A_PAYLOAD,
            "This begins like a payload, but it is not base64url throughout.",
            "Take away padding, quotes, escapes and line breaks; make + and / into - and _.",
        )
    if data[:4] != frame.MAGIC:
        return (
            Verdict.NEWER_FORMAT,
            "This payload has a newer version of the format than is known here.",
            "",
        )
    return Verdict.CUT_SHORT, "The payload ends before its key's id does.", _CUT


def _unknown(ring: ProtectionRing, error: UnknownKeyIdError) -> Inspection:
    if error.transient:
        return Inspection(
            Verdict.UNKNOWN_KEY,
            f"The key is not in what was last loaded of the ring at {ring.location_name}, "
            "and the store does not answer now.",
            hint="Try again when it does.",
        )
    return Inspection(
        Verdict.UNKNOWN_KEY,
        f"The ring at {ring.location_name} holds no such key.",
        hint="The payload is of another ring, or its key was deleted.",
    )


def _tried(
    ring: ProtectionRing,
    key: ProtectionKey,
    data: bytes,
    purposes: tuple[str, ...] | None,
) -> Inspection:
    if key.is_revoked:
        revoked = key.timeline.revoked
        since = f" at {rfc3339(revoked)}" if revoked else ""
        return Inspection(
            Verdict.REVOKED,
            f"The key was revoked{since}; nothing that it protected opens any more.",
        )
    algorithm = key.stored.algorithm
    if algorithm is not None and not _has_possible_length(data, algorithm):
        return Inspection(
            Verdict.CUT_SHORT,
            "The payload's length is impossible for its key's algorithm.",
            hint=_CUT,
        )
    try:
        key.material.open()
    except KagimoriError as error:
        return Inspection(
            Verdict.UNREADABLE_KEY,
            f"The ring holds the key but cannot read it: {error.text}",
            hint=error.hint,
        )
    if purposes is None:
        return Inspection(
            Verdict.KEY_KNOWN,
            "The ring holds the key and can read it; no purposes were named to try.",
        )
    protector = ring.protector(*purposes)
    try:
        opened = protector.unprotect_bytes(data)
    except ProtectionError:
        pass
    else:
        again = " Its key is no longer the current one." if opened.needs_renewal else ""
        return Inspection(Verdict.OPENS, f"The payload opens.{again}")
    return _tried_with_limit(ring, protector, data)


def _has_possible_length(data: bytes, algorithm: ProtectionAlgorithm) -> bool:
    body = len(data) - frame.HEADER_BYTES - MODIFIER_BYTES
    if algorithm.is_gcm:
        return body >= NONCE_BYTES + TAG_BYTES
    # IV and ciphertext are whole blocks, and padding makes one at least.
    blocks, rest = divmod(body - algorithm.mac_bytes, algorithm.block_bytes)
    return blocks >= 2 and not rest


def _tried_with_limit(
    ring: ProtectionRing, protector: Protector, data: bytes
) -> Inspection:
    try:
        opened = protector.time_limited().unprotect_bytes(data)
    except PayloadExpiredError:
        return Inspection(
            Verdict.EXPIRED,
            "The payload is sound, but its time is over.",
            is_time_limited=True,
            expires=_expiry(protector, data),
        )
    except ProtectionError:
        named = ring.application
        application = f"the application {named!r}" if named else "no application"
        return Inspection(
            Verdict.NOT_OURS,
            "The ring holds the key, but the payload is not valid under these purposes and "
            f"{application}.",
            hint="The purposes are others, or in another order, or the application's name is "
            "another one, or the payload was altered or cut.",
        )
    return Inspection(
        Verdict.OPENS,
        "The payload opens; it is time-limited.",
        is_time_limited=True,
        expires=opened.expires,
    )


def _expiry(protector: Protector, data: bytes) -> datetime:
    inner = protector.protector(frame.TIME_LIMITED).unprotect_bytes(data)
    return ticks.to_datetime(split_expiry(inner.payload)[1])


# --- guessing ------------------------------------------------------------------------------


def spellings(path: str | None) -> Iterator[str]:
    """
    Yield the application names that an ASP.NET application may have, the likely first.

    Without a name of its own it takes its content root: .NET 5 and older as it was given,
    .NET 6 with a separator at its end, later versions one or the other (1.7). A provider that
    no host built has none, which the empty text stands for.
    """
    if path:
        bare = path.strip()
        root = bare.rstrip("/\\")
        ends = ("\\", "/") if "\\" in bare else ("/", "\\")
        tried = dict.fromkeys((path, bare, root, *(root + end for end in ends)))
        yield from (spelling for spelling in tried if spelling)
    yield ""


def guess_application(
    ring: ProtectionRing, payload: str, path: str | None, purposes: tuple[str, ...]
) -> str | None:
    """
    Return the application name under which a payload opens; ``None`` if none of them does.

    Tried are the ring's own, the one noted in the ring, and the `spellings` of a path. The
    empty text says: none at all (`application=None`). Also a payload of a revoked key or past
    its expiry tells its name.

    Args:
        payload: the text form.
        path: the content root of the ASP.NET application, or a name to try.
        purposes: what the payload was protected for, time limit and application left out.

    Raises:
        ConfigError: there is no purpose, or one is no text or no valid Unicode.
        UnknownKeyIdError: the ring holds no such key, so no name would help.
        ProtectionError: this is no payload, or its key cannot be read.
    """
    if not purposes:
        raise ConfigError("Name at least one purpose.")
    data = frame.from_text(payload.strip())
    frame.check(data)
    key, _ = ring._live.opening_key(data[4 : frame.HEADER_BYTES])
    try:
        key.material.open()
    except KagimoriError as error:
        raise ProtectionError(
            "The payload's key cannot be read.", hint=error.hint, detail=error.text
        ) from error
    noted = ring._live.contents.state.application
    for name in dict.fromkeys((ring.application or "", noted or "", *spellings(path))):
        root = (frame.purpose_bytes(name),) if name else ()
        protector = Protector(ring._live, root).protector(*purposes)
        for tried in (protector, protector.protector(frame.TIME_LIMITED)):
            try:
                tried.unprotect_dangerously(data)
            except ProtectionError:
                continue
            return name
    return None
