"""
Triple DES in CBC mode: known answers, and what is refused.
"""

from __future__ import annotations

import pytest

from kagimori.crypto.triple_des import cbc_decrypt, cbc_encrypt
from kagimori.errors import ProtectionError

# With one key three times it is DES, whose worked example this is (J. O. Grabbe, 1992).
DES_KEY = bytes.fromhex("133457799BBCDFF1")
DES_TEXT, DES_BLOCK = (
    bytes.fromhex("0123456789ABCDEF"),
    bytes.fromhex("85E813540F0AB405"),
)
KEY, IV = bytes(range(24)), bytes(range(8))


def test_the_worked_example_of_des_comes_out():
    """
    Three equal keys make one encryption of DES.
    """
    assert DES_BLOCK == cbc_encrypt(DES_KEY * 3, bytes(8), DES_TEXT)[:8]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100])
def test_what_was_encrypted_is_decrypted(length: int):
    """
    At every length around a block, with three keys and with two.
    """
    for key in (KEY, KEY[:16]):
        assert b"x" * length == cbc_decrypt(
            key, IV, cbc_encrypt(key, IV, b"x" * length)
        )
    two, three = KEY[:16], KEY[:16] + KEY[:8]
    assert cbc_encrypt(two, IV, b"x") == cbc_encrypt(three, IV, b"x")


def test_wrong_lengths_and_paddings_are_refused():
    """
    Empty, not whole blocks, and a last block that is no padding.
    """
    sealed = cbc_encrypt(KEY, IV, b"x" * 8)
    assert b"x" * 8 == cbc_decrypt(KEY, IV, sealed)

    for bad in (b"", sealed[:-1], sealed[:8], sealed + b"x"):
        with pytest.raises(ProtectionError):
            cbc_decrypt(KEY, IV, bad)
    for last in (0, 0x48):
        changed = bytearray(sealed)
        # Under CBC this byte turns the last one of the padding.
        changed[7] ^= 8 ^ last
        with pytest.raises(ProtectionError):
            cbc_decrypt(KEY, IV, bytes(changed))
