"""
What sessions and tokens may hold.
"""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.integrations.packing import decode, encode

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([None, UTC])),
)
KEYS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["$", "$uuid", "$bytes", "$datetime", "$date"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=VALUES)
def test_what_may_be_held_comes_back(value):
    """
    JSON's own types, dates, UUIDs and bytes come back as they were, dicts that look like tags too.
    """
    found = decode(encode(value))

    assert found == value
    assert type(found) is type(value)


def test_tuples_become_lists():
    """
    A tuple comes back as a list, as JSON has it.
    """
    assert decode(encode({"a": (1, (2,))})) == {"a": [1, [2]]}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object"),
        {1: "a"},
        {"a": {1, 2}},
        2**64,
        float("nan"),
        [float("inf")],
        1j,
    ],
    ids=str,
)
def test_everything_else_is_refused_when_it_is_written(value):
    """
    What JSON cannot hold is refused, and not turned into something else on the quiet.
    """
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize("data", [b"", b"{", b'{"$uuid":"x"}', b"\xff", b'"a" 1'])
def test_what_was_not_made_by_us_is_a_value_error(data):
    """
    Reading what is no packed value raises one kind of error.
    """
    with pytest.raises(ValueError, match=r"."):
        decode(data)


def test_no_pickle_is_read():
    """
    A pickle is not executed: it is no JSON (attack: deserialisation).
    """
    with pytest.raises(ValueError, match=r"."):
        decode(pickle.dumps(UUID(int=1)))


def test_aware_dates_keep_their_zone():
    """
    An aware time stays aware, and a date a date.
    """
    value = {"at": datetime(2030, 1, 1, tzinfo=UTC), "on": date(2030, 1, 1)}

    assert decode(encode(value)) == value
