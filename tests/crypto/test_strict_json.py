"""
JSON that two programs could read differently is refused.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto.strict_json import parse_object

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[{"b":1,"b":2}]}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32-le"),
        b'{"a":"\xff"}',
        b'{"a":1}x',
        b'{"a":1}{}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":01}',
        b"[]",
        b'"{}"',
        b"null",
        b"1",
        b"",
        b"{",
        b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    ],
)
def test_J8_J14_refused(data):
    """
    Duplicate members, non-finite numbers, other encodings, no object, or too deep: refused.
    """
    with pytest.raises(ValueError, match=r"^JSON ") as refusal:
        parse_object(data)

    assert refusal.value.__cause__ is None


def test_accepted_twins():
    """
    The same texts with one thing right are read.
    """
    assert parse_object(b' {"a" : 1 , "b":\t2} ') == {"a": 1, "b": 2}
    assert parse_object(b'{"a":"\\ud83d\\udd11"}') == {"a": "\N{KEY}"}
    assert parse_object(b'{"a":1e300}') == {"a": 1e300}
    assert parse_object(b'{"a":' + b"[" * 60 + b"]" * 60 + b"}").keys() == {"a"}
    assert parse_object('{"鍵":"守"}'.encode()) == {"鍵": "守"}


def test_J14_depth_beyond_the_interpreter_is_a_plain_refusal():
    """
    Even where brackets are hardly bounded, depth ends in the same error.
    """
    with pytest.raises(ValueError, match=r"^JSON is malformed$"):
        parse_object(b'{"a":' + b"[" * 200_000, max_brackets=10**6)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_round_trip(value):
    """
    Whatever is written as JSON without surrogates is read back.
    """
    try:
        data = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return

    assert parse_object(data, max_brackets=1000) == value


@given(st.binary(max_size=200))
def test_any_octets_give_an_object_or_value_error(data):
    """
    No octets raise anything but ValueError.
    """
    try:
        value = parse_object(data)
    except ValueError:
        return

    assert isinstance(value, dict)
