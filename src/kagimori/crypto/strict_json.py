"""
JSON as a security parser must read it (attacks J8, J14).

The standard decoder keeps the last of two members with one name, takes ``NaN``, and guesses
UTF-16: each lets two programs read one text differently. Here all of that is refused. The
length is the caller's to bound; depth is bounded here, before parsing.
"""

from __future__ import annotations

import json
import math
from typing import Any

_MAX_BRACKETS = 64


def parse_object(data: bytes, *, max_brackets: int = _MAX_BRACKETS) -> dict[str, Any]:
    """
    Return the JSON object that `data` is.

    Args:
        data: UTF-8 without a byte order mark.
        max_brackets: how many objects and arrays there may be, those quoted within strings
            counted too; it bounds the depth.

    Raises:
        ValueError: not one object, not UTF-8, a member named twice at any depth, a number
            that is not finite, a lone surrogate, or too many brackets. The message never
            quotes the text.
    """
    if data.count(b"{") + data.count(b"[") > max_brackets:
        raise ValueError("JSON is nested too deeply")
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_members,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        if "\\" in text:
            # An escape can smuggle in a lone surrogate, which breaks whoever writes it out.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _DuplicateMemberError:
        raise ValueError("JSON names a member twice") from None
    except (ValueError, RecursionError):
        # Not chained: the decoder's error holds the whole text.
        raise ValueError("JSON is malformed") from None
    if not isinstance(value, dict):
        raise ValueError("JSON is not an object")  # noqa: TRY004 - one error for bad text
    return value


class _DuplicateMemberError(ValueError):
    """
    A member was named twice.
    """


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateMemberError
    return members


def _refuse_constant(_name: str) -> float:
    raise ValueError("not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value
