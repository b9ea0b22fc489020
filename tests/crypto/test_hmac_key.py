"""
The prepared HMAC key agrees with the plain function.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto.digests import HmacKey, hmac_sha256


@given(key=st.binary(max_size=64), messages=st.lists(st.binary(max_size=200)))
def test_a_prepared_key_gives_the_same_hmac_every_time(key, messages):
    """
    RFC 2104: the kept states of the two pads change nothing, use after use.
    """
    prepared = HmacKey(key)

    assert [hmac_sha256(key, each) for each in messages] == [
        prepared.digest(each) for each in messages
    ]


def test_a_key_longer_than_a_block_is_refused():
    """
    Such a key would have to be hashed first; no caller has one.
    """
    with pytest.raises(ValueError, match="one block"):
        HmacKey(b"x" * 65)
