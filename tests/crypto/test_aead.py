"""
AES-GCM, and AES-CBC with HMAC.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto.aead import (
    cbc_decrypt_raw,
    cbc_hmac_open,
    cbc_hmac_seal,
    gcm_open,
    gcm_seal,
)
from kagimori.errors import ProtectionError

KEY, MAC_KEY = bytes(range(32)), bytes(range(32, 64))
NONCE, IV = bytes(12), bytes(16)


def test_gcm_agrees_with_nist():
    """
    The cases of the GCM specification (McGrew and Viega, test cases 13 and 14) come out.
    """
    assert "530f8afbc74536b9a963b4f1c4cb738b" == gcm_seal(bytes(32), NONCE, b"").hex()
    assert (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
        == gcm_seal(bytes(32), NONCE, bytes(16)).hex()
    )


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_gcm_opens_what_it_sealed(plaintext: bytes, aad: bytes):
    """
    What was sealed opens with the same AAD, and with no other.
    """
    sealed = gcm_seal(KEY, NONCE, plaintext, aad)

    assert plaintext == gcm_open(KEY, NONCE, sealed, aad)
    with pytest.raises(ProtectionError):
        gcm_open(KEY, NONCE, sealed, aad + b"x")


@given(st.binary(max_size=200))
def test_cbc_hmac_opens_what_it_sealed(plaintext: bytes):
    """
    Every length opens, and the ciphertext is whole blocks before a tag of 32 bytes.
    """
    sealed = cbc_hmac_seal(KEY, MAC_KEY, IV, plaintext, mac="sha256")

    assert 0 == len(sealed) % 16
    assert len(plaintext) // 16 * 16 + 16 + 32 == len(sealed)
    opened = cbc_hmac_open(KEY, MAC_KEY, IV, sealed, mac="sha256", tag_bytes=32)
    assert plaintext == opened


@pytest.mark.parametrize("mac", ["sha256", "sha512"])
def test_K1_every_flipped_bit_is_refused(mac: str):
    """
    K1: a flipped bit anywhere, in the IV too, is refused; the twin as it was opens.
    """
    tag_bytes = {"sha256": 32, "sha512": 64}[mac]
    sealed = cbc_hmac_seal(KEY, MAC_KEY, IV, b"plaintext", mac=mac)
    whole = IV + sealed
    for bit in range(len(whole) * 8):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtectionError):
            cbc_hmac_open(
                KEY,
                MAC_KEY,
                bytes(changed[:16]),
                bytes(changed[16:]),
                mac=mac,
                tag_bytes=tag_bytes,
            )

    opened = cbc_hmac_open(KEY, MAC_KEY, IV, sealed, mac=mac, tag_bytes=tag_bytes)
    assert b"plaintext" == opened


def test_a_tag_of_zeros_or_of_part_is_refused():
    """
    CVE-2026-40372: neither a zeroed tag nor a cut one nor none at all is accepted.
    """
    sealed = cbc_hmac_seal(KEY, MAC_KEY, IV, b"plaintext", mac="sha256")
    for forged in (sealed[:-32] + bytes(32), sealed[:-1], sealed[:-32], b"", bytes(64)):
        with pytest.raises(ProtectionError):
            cbc_hmac_open(KEY, MAC_KEY, IV, forged, mac="sha256", tag_bytes=32)
    for forged in (gcm_seal(KEY, NONCE, b"x")[:-16] + bytes(16), b"", bytes(15)):
        with pytest.raises(ProtectionError):
            gcm_open(KEY, NONCE, forged)


@pytest.mark.parametrize("length", [0, 1, 15, 17])
def test_ciphertext_is_whole_blocks(length: int):
    """
    An empty or ragged ciphertext is the same error as any other.
    """
    with pytest.raises(ProtectionError):
        cbc_decrypt_raw(KEY, IV, bytes(length))
