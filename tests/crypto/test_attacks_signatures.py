"""
The attacks J10 on signatures and J11 on tags. Each refusal has an accepted twin.
"""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, utils

from kagimori.crypto.aead import gcm_open, gcm_seal
from kagimori.crypto.algorithms import CURVES
from kagimori.errors import InvalidJwsError, ProtectionError

# --- J10: signatures -----------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512"])
def test_J10_ecdsa_edge_values_are_refused(keys, alg):
    """
    Halves of zero, the order or beyond it, swapped halves, other lengths and DER are refused.
    """
    key = keys[alg]
    curve = CURVES[key.to_dict()["crv"]]
    signature = key.sign(b"message")
    size, order = curve.size, curve.order
    r = int.from_bytes(signature[:size], "big")
    s = int.from_bytes(signature[size:], "big")
    top = 256**size

    def raw(first: int, second: int) -> bytes:
        return first.to_bytes(size, "big") + second.to_bytes(size, "big")

    wrong = [
        *(raw(0, 0), raw(0, s), raw(r, 0), raw(1, 1), raw(s, r)),
        *(raw(order, s), raw(r, order), raw(order, order), raw(0, order)),
        *(raw(top - 1, s), raw(r, top - 1), raw(order - 1, s), raw(r, order - 1)),
        utils.encode_dss_signature(r, s),
        signature[:size],
        signature[:-1],
        b"\0" + signature,
        signature + b"\0",
        signature[:size] + b"\0" + signature[size:],
    ]
    wrong += [
        raw(first, second)
        for first, second in ((r + order, s), (r, s + order))
        if first < top and second < top
    ]
    key.verify(signature, b"message")
    for one in wrong:
        with pytest.raises(InvalidJwsError):
            key.verify(one, b"message")


def _pkcs1(digest_info: bytes, size: int, *, filler: int | None = None) -> int:
    length = size - 3 - len(digest_info) if filler is None else filler
    block = b"\0\1" + b"\xff" * length + b"\0" + digest_info
    return int.from_bytes(block.ljust(size, b"\x11"), "big")


def test_J10_altered_pkcs1_padding_is_refused(keys):
    """
    Trailing garbage, short padding and an altered DigestInfo are refused, though well signed.
    """
    key = keys["RS256"]
    numbers = key._private.private_numbers()
    n, d = numbers.public_numbers.n, numbers.d
    size = 256
    digest = hashlib.sha256(b"message").digest()
    prefix = bytes.fromhex("3031300d060960864801650304020105000420")
    without_null = bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20"
    sha512 = bytes.fromhex("3051300d060960864801650304020305000440")

    def signed(block: int) -> bytes:
        return pow(block, d, n).to_bytes(size, "big")

    good = signed(_pkcs1(prefix + digest, size))
    value = int.from_bytes(good, "big")
    wrong = [
        signed(_pkcs1(prefix + digest, size, filler=8)),
        signed(_pkcs1(prefix + digest, size, filler=100)),
        signed(_pkcs1(prefix + digest + b"\0", size)),
        signed(_pkcs1(without_null + digest, size)),
        signed(_pkcs1(sha512 + hashlib.sha512(b"message").digest(), size)),
        signed(_pkcs1(digest, size)),
        signed(_pkcs1(prefix + hashlib.sha256(b"other").digest(), size)),
        good + b"\0",
        b"\0" + good,
        good[:-1],
        *((value + k * n).to_bytes(size, "big") for k in (1,) if value + n < 256**size),
        (n - 1).to_bytes(size, "big"),
        n.to_bytes(size, "big"),
        (0).to_bytes(size, "big"),
        (1).to_bytes(size, "big"),
    ]
    key.verify(good, b"message")
    for one in wrong:
        with pytest.raises(InvalidJwsError):
            key.verify(one, b"message")


def test_J10_pss_of_another_salt_length_or_hash_is_refused(keys):
    """
    A PSS signature with a salt of another length, or another mask hash, is refused.
    """
    private = keys["PS256"]._private
    sha256, sha1 = hashes.SHA256(), hashes.SHA1()

    def made(mask: hashes.HashAlgorithm, salt: int) -> bytes:
        pss = padding.PSS(mgf=padding.MGF1(mask), salt_length=salt)
        return private.sign(b"message", pss, sha256)

    keys["PS256"].verify(made(sha256, 32), b"message")
    for mask, salt in ((sha256, 0), (sha256, 20), (sha256, 64), (sha1, 32)):
        with pytest.raises(InvalidJwsError):
            keys["PS256"].verify(made(mask, salt), b"message")


def test_J10_ed25519_signatures_have_one_form(keys):
    """
    S beyond the order of the group, which would verify with lax arithmetic, is refused.
    """
    order = 2**252 + 27742317777372353535851937790883648493
    signature = keys["Ed25519"].sign(b"message")
    s = int.from_bytes(signature[32:], "little")
    keys["Ed25519"].verify(signature, b"message")
    for second in (s + order, s + 2 * order, 2**256 - 1):
        with pytest.raises(InvalidJwsError):
            keys["Ed25519"].verify(
                signature[:32] + second.to_bytes(32, "little"), b"message"
            )


# --- J11: authenticated encryption ---------------------------------------------------------


def test_J11_a_tag_has_exactly_its_length():
    """
    A truncated, extended, empty or altered tag, and a nonce of another length, are refused.
    """
    key, nonce = bytes(range(32)), bytes(range(12))
    sealed = gcm_seal(key, nonce, b"plaintext", b"aad")
    wrong = [sealed[:-n] for n in range(1, len(sealed))]
    wrong += [b"", sealed + b"\0", sealed + sealed[-16:], sealed[:-1] + b"\0\0"]
    wrong += [sealed[:-16], sealed[:-16] + bytes(16)]

    assert gcm_open(key, nonce, sealed, b"aad") == b"plaintext"
    for one in wrong:
        with pytest.raises(ProtectionError):
            gcm_open(key, nonce, one, b"aad")
    for odd in (b"", nonce[:-1], nonce + b"\0", bytes(8), bytes(16)):
        with pytest.raises(ProtectionError):
            gcm_open(key, odd, sealed, b"aad")
