"""
What sessions and tokens may hold, as JSON. Never pickle: reading one would run what it says.

Plain JSON as it is: ``None``, booleans, integers of 64 bits, finite floats, text, lists, and
dicts with text for keys. Tuples become lists. Beside them `datetime`, `date`, `UUID` and bytes
come back as what they were; they lie in a dict with one key, such as ``{"$uuid": "…"}``.
Everything else is refused when it is written, with the name of its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from kagimori.crypto.digests import b64url_decode, b64url_encode

_LEAST, _MOST = -(2**63), 2**63 - 1
_ESCAPED = "$"


def pack(value: object) -> object:
    """
    Return a value as plain JSON types.

    Raises:
        TypeError: something in it has no place in JSON.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and _LEAST <= value <= _MOST:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    if isinstance(value, Mapping):
        return _pack_dict(value)
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, date):
        return {"$date": value.isoformat()}
    if isinstance(value, UUID):
        return {"$uuid": str(value)}
    if isinstance(value, bytes):
        return {"$bytes": b64url_encode(value)}
    # Its value stays out of the text: it may be a secret.
    raise TypeError(f"A {type(value).__name__} of this value has no place in JSON.")


def unpack(value: Any) -> Any:
    """
    Return what `pack` was given.

    Raises:
        ValueError: this was not made by `pack`.
    """
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, content),) = value.items()
        if name == _ESCAPED and isinstance(content, dict):
            return {key: unpack(item) for key, item in content.items()}
        if name in _TAGS and isinstance(content, str):
            return _TAGS[name](content)
    return {key: unpack(item) for key, item in value.items()}


def encode(value: object) -> bytes:
    """
    Return a value as JSON.

    Raises:
        TypeError: something in it has no place in JSON.
    """
    return msgspec.json.encode(pack(value))


def decode(data: bytes) -> Any:
    """
    Return what `encode` was given.

    Raises:
        ValueError: this was not made by `encode`.
    """
    return unpack(msgspec.json.decode(data))


def _pack_dict(value: Mapping[Any, object]) -> dict[str, object]:
    packed: dict[str, object] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"A key is text, not {type(key).__name__}.")
        packed[str(key)] = pack(item)
    # So that a dict of the application's that looks like ours comes back as it was.
    if len(packed) == 1 and next(iter(packed)).startswith("$"):
        return {_ESCAPED: packed}
    return packed


_TAGS: dict[str, Callable[[str], object]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$uuid": UUID,
    "$bytes": b64url_decode,
}
