"""
Carrying a single key from one ring to another, under a passphrase, as text.

The format (`docs/ring-key-export.md`)::

    -----BEGIN KAGIMORI PROTECTION KEY-----
    Version: 1
    Key: 3d6d01fd-c0e7-44ae-82dd-013b996b4093
    Derivation: argon2id v=19 m=262144 t=3 p=4
    Salt: base64, 16 bytes
    Nonce: base64, 12 bytes

    base64 of AES-256-GCM(KEK, nonce, <key> element) || tag, 64 characters a line
    -----END KAGIMORI PROTECTION KEY-----

    KEK = Argon2id 1.3(passphrase, salt, m KiB, t, p, 32 bytes)                     (RFC 9106)
    AAD = UTF-8 of the five lines Version … Nonce as written, joined by line feeds

Rules of this module:

1. The text leaves the house, so it costs more to guess than a ring's own envelopes, and a weak
   passphrase is refused: whoever finds the text may guess for years.
2. Parameters are bounded before anything is derived, and all lines are authenticated.
3. Id, dates and algorithm travel inside: a key is the same key wherever it goes. A key that
   would protect at once, though other nodes do not have it, is imported in an emergency only.
"""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from secrets import token_bytes
from textwrap import wrap

from kagimori.crypto.aead import NONCE_BYTES, gcm_open, gcm_seal
from kagimori.crypto.passwords import MAX_SECRET_BYTES, derive_key
from kagimori.errors import (
    ClockBehindError,
    InsecureConfigError,
    InvalidKeyError,
    KeyRingError,
    KeyStateError,
    KeyWrapError,
    ProtectionError,
    RingMalformedError,
)
from kagimori.events import Severity
from kagimori.keys.protection import descriptor, elements, refusing, rewriting, xml
from kagimori.keys.protection.contents import Contents, revoked_before
from kagimori.keys.protection.elements import StoredKey
from kagimori.keys.protection.envelopes import Envelopes, wrap_checked
from kagimori.keys.protection.plan import NOTHING_TO_DO, Plan
from kagimori.keys.protection.rewrapping import opened_somehow
from kagimori.keys.protection.terms import Terms, propagation
from kagimori.keys.protection.ticks import to_datetime
from kagimori.keys.store import Element
from kagimori.keys.wrapping import KeyWrapper

MIN_PASSPHRASE_LENGTH = 16
"""The fewest characters of a passphrase; a machine's or six words of a list are better."""

_MIN_BITS = 50.0
_BEGIN = "-----BEGIN KAGIMORI PROTECTION KEY-----"
_END = "-----END KAGIMORI PROTECTION KEY-----"
_SALT_BYTES = 16
_KEK_BYTES = 32
_MOST_CHARACTERS = 64 * 1024
_LINE = 64
_PARAMETERS = re.compile(
    r"argon2id v=19 m=([1-9]\d{0,7}) t=([1-9]\d?) p=([1-9]\d?)", re.ASCII
)
_HEADERS = ("Version", "Key", "Derivation", "Salt", "Nonce")


@dataclass(frozen=True, slots=True)
class Cost:
    """
    What a guess costs.

    Attributes:
        memory_kib: memory in KiB, 8 MiB to 1 GiB.
        iterations: passes over it, 1 to 16.
        lanes: 1 to 16.
    """

    memory_kib: int = 256 * 1024
    iterations: int = 3
    lanes: int = 4

    @property
    def is_affordable(self) -> bool:
        """
        Whether it is within bounds.
        """
        return (
            8 * 1024 <= self.memory_kib <= 1024 * 1024
            and 1 <= self.iterations <= 16
            and 1 <= self.lanes <= 16
            and self.memory_kib * self.iterations <= 4 * 1024 * 1024
        )


# --- passphrases ---------------------------------------------------------------------------


def check_passphrase(passphrase: str) -> None:
    """
    Refuse a passphrase that could be guessed (rule 1).

    Raises:
        InsecureConfigError: it is too short, too long, or too regular; it is never named.
    """
    hint = "Let a machine make one: head -c 32 /dev/urandom | base64"
    if len(passphrase.encode("utf-8", "replace")) > MAX_SECRET_BYTES:
        raise InsecureConfigError(
            f"The passphrase is longer than {MAX_SECRET_BYTES} bytes.", hint=hint
        )
    if len(passphrase) < MIN_PASSPHRASE_LENGTH:
        raise InsecureConfigError(
            f"The passphrase has fewer than {MIN_PASSPHRASE_LENGTH} characters.",
            hint=hint,
        )
    if _bits(_essence(passphrase)) < _MIN_BITS:
        raise InsecureConfigError(
            "The passphrase is too regular: it repeats itself or counts.", hint=hint
        )


def _essence(text: str) -> str:
    """
    Return a text without what repeats or counts: length alone is no strength.
    """
    for period in range(1, len(text) // 2 + 1):
        if text == (text[:period] * (len(text) // period + 1))[: len(text)]:
            text = text[:period]
            break
    kept, step = text[:1], 0
    for before, letter in pairwise(text):
        last, step = step, ord(letter) - ord(before)
        if step != last or abs(step) > 1:
            kept += letter
    return kept


def _bits(text: str) -> float:
    counts = Counter(text.casefold())
    return sum(-n * math.log2(n / len(text)) for n in counts.values())


# --- out -----------------------------------------------------------------------------------


def export_key(
    contents: Contents,
    envelopes: Envelopes,
    key_id: str,
    passphrase: str,
    cost: Cost | None = None,
) -> str:
    """
    Return a key as text that only the passphrase opens.

    Args:
        cost: what a guess is to cost.

    Raises:
        NotFoundError: there is no such key.
        InsecureConfigError: the passphrase is weak.
        KeyRingError: the key cannot be opened.
    """
    check_passphrase(passphrase)
    key = refusing.require(contents, key_id)
    second = contents.recoveries.get(key_id)
    root = opened_somehow(key.stored, envelopes, second.wrapped if second else None)
    cost = cost or Cost()
    salt, nonce = token_bytes(_SALT_BYTES), token_bytes(NONCE_BYTES)
    values = (
        "1",
        key_id,
        f"argon2id v=19 m={cost.memory_kib} t={cost.iterations} p={cost.lanes}",
        _b64(salt),
        _b64(nonce),
    )
    head = "\n".join(
        f"{name}: {value}" for name, value in zip(_HEADERS, values, strict=True)
    )
    kek = _kek(passphrase, salt, cost)
    sealed = gcm_seal(kek, nonce, xml.write(root).encode(), head.encode())
    body = "\n".join(wrap(_b64(sealed), _LINE))
    return f"{_BEGIN}\n{head}\n\n{body}\n{_END}\n"


# --- in ------------------------------------------------------------------------------------


def read_export(text: str, passphrase: str) -> StoredKey:
    """
    Open what `export_key` made: a key whose secret lies in the clear, in memory.

    Raises:
        RingMalformedError: this is no such text, or of a newer version.
        KeyWrapError: another passphrase, or an altered text.
    """
    values, head, sealed = _parts(text)
    found = _PARAMETERS.fullmatch(values[2])
    cost = Cost(*(int(number) for number in found.groups())) if found else None
    salt, nonce = _raw(values[3]), _raw(values[4])
    if values[0] != "1" or len(salt) != _SALT_BYTES or len(nonce) != NONCE_BYTES:
        raise _malformed()
    if cost is None or not cost.is_affordable:
        raise KeyWrapError(
            "The text asks for a key derivation whose cost is out of bounds.",
            hint="Whoever wrote that is not Kagimori: export the key again.",
        )
    try:
        kek = _kek(passphrase, salt, cost)
        opened = gcm_open(kek, nonce, sealed, head.encode()).decode()
    except (ProtectionError, InvalidKeyError, UnicodeDecodeError):
        raise KeyWrapError(
            "The passphrase does not open the exported key.",
            hint="Use the one that it was exported with. If it is that one, the text was "
            "altered: export the key again.",
        ) from None
    root = xml.parse(opened, what="An exported key")
    key = elements.read_key(root, f"key-{values[1]}", opened)
    if root.tag != "key" or key.id != values[1]:
        raise _malformed()
    return key


def import_key(
    contents: Contents,
    now: datetime,
    terms: Terms,
    carried: StoredKey,
    wrapped: tuple[Element, ...],
    *,
    emergency: bool = False,
    reason: str = "",
) -> Plan:
    """
    Add a carried key to a ring, unless it holds it already.

    Args:
        carried: from `read_export`.
        wrapped: the same, from `wrap_carried`.
        emergency: although it would protect before every node can have it.

    Raises:
        KeyStateError: it would be revoked at once, or protect at once.
        ClockBehindError: it was made later than now.
    """
    if contents.get(carried.id) is not None:
        return NOTHING_TO_DO
    if to_datetime(carried.created) > now + terms.policy.skew:
        # No key could be made beside it until then.
        raise ClockBehindError(
            f"The key {carried.id} was made later than now by this machine's clock.",
            hint="Set the clock right.",
        )
    before = revoked_before(contents.revocations)
    if any(one.key_id == carried.id for one in contents.revocations) or (
        before is not None and carried.created < before
    ):
        raise KeyStateError(
            f"A revocation in the ring covers the key {carried.id}.",
            hint="Read what it protects with the ring that it came from.",
        )
    current = contents.current(now)
    takes_over = to_datetime(carried.activates)
    safe = now + propagation(contents, terms)
    if (
        current is not None
        and current.timeline.activates <= takes_over < safe
        and not emergency
    ):
        raise refusing.too_early(f"the key {carried.id}", safe, contents)
    fields = {"key": carried.id, "use": "protection"}
    return Plan(
        add=wrapped,
        reasons={carried.id: reason or "imported"},
        tales=(("key.imported", Severity.WARNING, fields),),
        entered=(carried.id,),
    )


def wrap_carried(
    carried: StoredKey, wrapper: KeyWrapper, recovery: KeyWrapper | None
) -> tuple[Element, ...]:
    """
    Return the elements of a carried key, wrapped for the ring that takes it.

    Raises:
        KeyWrapError: a wrapper refuses, or gives back something else.
        KeyRingError: the text holds no key that could ever open anything.
    """

    def nothing_wrapped(*_: object) -> str:
        raise _malformed()

    # An algorithm that is not known here, or a secret that is none, shows now.
    descriptor.read_secret(carried.id, carried.text, nothing_wrapped)
    root = rewriting.opened_key(carried, nothing_wrapped)
    secret = rewriting.secret_in(root, carried.id)
    first = wrap_checked(wrapper, secret, carried.id)
    made = [Element(carried.name, rewriting.with_envelope(root, carried.id, first))]
    if recovery is not None:
        second = wrap_checked(recovery, secret, carried.id)
        made.append(rewriting.recovery_element(carried.id, second))
    return tuple(made)


def _parts(text: str) -> tuple[list[str], str, bytes]:
    if len(text) > _MOST_CHARACTERS:
        raise _malformed()
    lines = [line.rstrip() for line in text.strip().splitlines()]
    head, rest = lines[1 : 1 + len(_HEADERS)], lines[1 + len(_HEADERS) :]
    if lines[:1] != [_BEGIN] or lines[-1:] != [_END] or rest[:1] != [""]:
        raise _malformed()
    names = [line.partition(": ")[0] for line in head]
    if names != list(_HEADERS):
        raise _malformed()
    values = [line.partition(": ")[2] for line in head]
    return values, "\n".join(head), _raw("".join(rest[1:-1]))


def _kek(passphrase: str, salt: bytes, cost: Cost) -> bytes:
    try:
        return derive_key(
            passphrase.encode("utf-8", "surrogatepass"),
            salt,
            memory_kib=cost.memory_kib,
            iterations=cost.iterations,
            lanes=cost.lanes,
            length=_KEK_BYTES,
        )
    except MemoryError:
        raise KeyWrapError(
            "There is not enough memory to derive a key from the passphrase.",
            transient=True,
        ) from None


def _malformed() -> KeyRingError:
    return RingMalformedError(
        "This is no exported key, or one of a newer version.",
        hint="It is the text that `kagimori ring export` wrote, whole.",
    )


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _raw(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise _malformed() from None
