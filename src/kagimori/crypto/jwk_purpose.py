"""
What a JWK says of itself besides its material: its name and its purpose (RFC 7517 section 4).

Rules of this module:

1. A key for anything but signatures is refused, whichever member says so (attack J9).
2. A name is short and printable: it goes into headers, logs and maps (attack J4).
"""

from __future__ import annotations

from collections.abc import Mapping

from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.strict_json import parse_object
from kagimori.errors import InvalidKeyError

MAX_KID_LENGTH = 256

SIGN = "sign"
VERIFY = "verify"
OPERATIONS = frozenset((SIGN, VERIFY))


def parsed(data: bytes | str, limit: int, brackets: int) -> dict[str, object]:
    """
    Return the JSON object in a text of at most `limit` bytes.

    Raises:
        InvalidKeyError: too long, not strict JSON, or more objects and arrays than `brackets`.
    """
    # Characters are never more than octets, so this bounds before anything is copied.
    if len(data) > limit:
        raise InvalidKeyError("The JSON text is too long.")
    try:
        octets = data.encode("utf-8") if isinstance(data, str) else data
        return parse_object(octets, max_brackets=brackets)
    except ValueError:
        raise InvalidKeyError("The text is not strict JSON.") from None


def kid_of(members: Mapping[str, object]) -> str | None:
    """
    Return the key's name, None where it has none.

    Raises:
        InvalidKeyError: not a text, empty, longer than 256 characters, or not printable.
    """
    if "kid" not in members:
        return None
    kid = members["kid"]
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_LENGTH:
        raise InvalidKeyError("The kid of the key is not a short text.")
    if not kid.isprintable():
        raise InvalidKeyError("The kid of the key has control characters.")
    return kid


def alg_of(members: Mapping[str, object]) -> str | None:
    """
    Return the algorithm that the key names, None where it names none.

    Raises:
        InvalidKeyError: it names one that is not offered.
    """
    if "alg" not in members:
        return None
    alg = members["alg"]
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise InvalidKeyError("The key is for an algorithm that is not supported.")
    return alg


def use_of(members: Mapping[str, object]) -> str | None:
    """
    Return the key's ``use``, which can only be ``sig``, None where it has none.

    Raises:
        InvalidKeyError: it is another one.
    """
    if "use" not in members:
        return None
    if members["use"] != "sig":
        raise InvalidKeyError("The key is not for signatures.")
    return "sig"


def operations_of(members: Mapping[str, object]) -> frozenset[str]:
    """
    Return what the key may do: ``key_ops``, else both signing and verifying.

    Raises:
        InvalidKeyError: malformed, or not for signatures alone.
    """
    if "key_ops" not in members:
        return OPERATIONS
    listed = members["key_ops"]
    if not isinstance(listed, list | tuple) or not all(
        isinstance(name, str) for name in listed
    ):
        raise InvalidKeyError("The key_ops of the key are not an array of names.")
    operations = frozenset(listed)
    needed = OPERATIONS if "d" in members else frozenset((VERIFY,))
    # RFC 7517 section 4.3: no duplicates, and unrelated operations should not share a key.
    if (
        len(operations) != len(listed)
        or not operations <= OPERATIONS
        or not operations & needed
    ):
        raise InvalidKeyError("The key is not for signatures.")
    return operations
