"""
Argon2id (RFC 9106): for what a human chose, and for keys made from a passphrase.

Rules of this module:

1. A secret longer than `MAX_SECRET_BYTES` is refused before it is hashed, when it is set and
   when it is checked (attack A15). Nothing is truncated, normalised or cut at a NUL.
2. Work is bounded by what was stored too: parameters above the limits are never run.
3. A hash takes some 20 ms and 19 MiB, and lets other threads run meanwhile. Whoever calls
   bounds how many run at once.
"""

from __future__ import annotations

import secrets
from typing import Final

from argon2 import Parameters, Type, extract_parameters, low_level
from argon2.exceptions import Argon2Error, InvalidHashError

from kagimori.errors import InvalidKeyError, RefusedError

MAX_SECRET_BYTES: Final = 1024

DUMMY_HASH: str
"""
A hash that no text matches, made when first used: checking a secret against it costs what an
existing user's check costs, so that time does not tell which users exist (attack A13).
"""

# OWASP's first choice for Argon2id: 19 MiB, two passes, one lane.
_MEMORY_KIB: Final = 19 * 1024
_ITERATIONS: Final = 2
_LANES: Final = 1
_HASH_BYTES: Final = 32
_SALT_BYTES: Final = 16

MAX_MEMORY_KIB: Final = 1024 * 1024
MAX_ITERATIONS: Final = 64
MAX_LANES: Final = 16
_MIN_SALT_BYTES: Final = 8
_MAX_PHC_LENGTH: Final = 512
_ARGON2_VERSION: Final = 0x13


def hash_secret(text: str) -> str:
    """
    Return the Argon2id hash of a secret in the PHC format, under a random salt.

    Raises:
        RefusedError: the secret is longer than `MAX_SECRET_BYTES` in UTF-8, or no text.
    """
    secret = _encoded(text)
    if secret is None:
        raise RefusedError(f"A secret has at most {MAX_SECRET_BYTES} bytes of UTF-8.")
    return _hash(secret)


def verify_secret(phc: str, text: str) -> bool:
    """
    Return whether a secret is the one that was hashed.

    A hash that cannot be read, or that would cost more than the limits, matches nothing.
    """
    secret = _encoded(text)
    if secret is None or _parameters(phc) is None:
        return False
    try:
        return low_level.verify_secret(phc.encode("ascii"), secret, Type.ID)
    except Argon2Error:
        # Not matching is the usual reason; the error says nothing else of use.
        return False


def needs_rehash(phc: str) -> bool:
    """
    Return whether a hash was made with other parameters than `hash_secret` uses now.
    """
    return _parameters(phc) != Parameters(
        type=Type.ID,
        version=_ARGON2_VERSION,
        salt_len=_SALT_BYTES,
        hash_len=_HASH_BYTES,
        time_cost=_ITERATIONS,
        memory_cost=_MEMORY_KIB,
        parallelism=_LANES,
    )


def derive_key(
    passphrase: bytes,
    salt: bytes,
    *,
    memory_kib: int,
    iterations: int,
    lanes: int,
    length: int,
) -> bytes:
    """
    Derive `length` octets from a passphrase by Argon2id version 1.3.

    Args:
        memory_kib: at least 8 for each lane, at most 1 GiB.
        iterations: passes over the memory, at most 64.
        lanes: at most 16.

    Raises:
        InvalidKeyError: the passphrase is empty or too long, or a parameter is out of bounds.
    """
    if not 0 < len(passphrase) <= MAX_SECRET_BYTES:
        raise InvalidKeyError(f"A passphrase has 1 to {MAX_SECRET_BYTES} bytes.")
    if not (
        _affordable(memory_kib, iterations, lanes)
        and _MIN_SALT_BYTES <= len(salt) <= MAX_SECRET_BYTES
        and 16 <= length <= 64
    ):
        raise InvalidKeyError("The parameters of the key derivation are out of bounds.")
    return low_level.hash_secret_raw(
        passphrase,
        salt,
        time_cost=iterations,
        memory_cost=memory_kib,
        parallelism=lanes,
        hash_len=length,
        type=Type.ID,
        version=_ARGON2_VERSION,
    )


def _hash(secret: bytes) -> str:
    return low_level.hash_secret(
        secret,
        secrets.token_bytes(_SALT_BYTES),
        time_cost=_ITERATIONS,
        memory_cost=_MEMORY_KIB,
        parallelism=_LANES,
        hash_len=_HASH_BYTES,
        type=Type.ID,
        version=_ARGON2_VERSION,
    ).decode("ascii")


def _encoded(text: str) -> bytes | None:
    # UTF-8 is never shorter than the text: this bounds before anything is copied.
    if len(text) > MAX_SECRET_BYTES:
        return None
    try:
        secret = text.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return secret if len(secret) <= MAX_SECRET_BYTES else None


def _parameters(phc: str) -> Parameters | None:
    """
    Return the parameters of a hash that may be run, else None.
    """
    if len(phc) > _MAX_PHC_LENGTH or not phc.isascii():
        return None
    try:
        found = extract_parameters(phc)
    except (InvalidHashError, ValueError):
        return None
    runnable = found.type is Type.ID and _affordable(
        found.memory_cost, found.time_cost, found.parallelism
    )
    return found if runnable else None


def _affordable(memory_kib: int, iterations: int, lanes: int) -> bool:
    return (
        1 <= lanes <= MAX_LANES
        and 8 * lanes <= memory_kib <= MAX_MEMORY_KIB
        and 1 <= iterations <= MAX_ITERATIONS
    )


def __getattr__(name: str) -> str:
    if name != "DUMMY_HASH":
        raise AttributeError(name)
    # The secret is forgotten at once. Two threads that come first at the same time make two.
    made = _hash(secrets.token_bytes(_HASH_BYTES))
    return globals().setdefault(name, made)  # type: ignore[no-any-return]
