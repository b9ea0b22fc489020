"""
Custom managed and CNG configurations: their names, their headers, and payloads under them.
"""

from __future__ import annotations

import pytest

from kagimori.crypto.kdf import CounterKdf
from kagimori.errors import KeyRingError, ProtectionError
from kagimori.keys.protection import frame, xml
from kagimori.keys.protection.algorithms import (
    cbc_hmac,
    gcm,
    triple_des_hmac,
)
from kagimori.keys.protection.derivation import sealer
from kagimori.keys.protection.descriptor import read_algorithm
from tests.keys.protection.custom import KEY_ID, managed, of_type, outer, write_key
from tests.keys.protection.world import World


def cng(kind: str, cipher: str, bits: int, mac: str = "") -> xml.Element:
    digest = f'<hash algorithm="{mac}" />' if mac else ""
    return outer(
        f"Cng{kind}",
        f'<encryption algorithm="{cipher}" keyLength="{bits}" provider="x" />{digest}',
    )


KNOWN = [
    (managed("Aes", 128, "HMACSHA384"), cbc_hmac(128, "sha384")),
    (managed("Aes", 256, "HMACSHA1"), cbc_hmac(256, "sha1")),
    (managed("Aes", 192, "HMACSHA512"), cbc_hmac(192, "sha512")),
    (managed(of_type("AesCng"), 256, of_type("HMACSHA256")), cbc_hmac(256, "sha256")),
    (managed(of_type("TripleDES"), 192, "HMACSHA1"), triple_des_hmac(192, "sha1")),
    (
        managed(of_type("TripleDESCryptoServiceProvider"), 128, of_type("HMACMD5")),
        triple_des_hmac(128, "md5"),
    ),
    (managed("Aes", 256, of_type("HMACSHA3_256")), cbc_hmac(256, "sha3_256")),
    (cng("Cbc", "AES", 256, "SHA256"), cbc_hmac(256, "sha256")),
    (cng("Cbc", "AES", 192, "SHA384"), cbc_hmac(192, "sha384")),
    (cng("Cbc", "3DES", 192, "SHA1"), triple_des_hmac(192, "sha1")),
    (cng("Gcm", "AES", 128), gcm(128)),
    (cng("Gcm", "AES", 256), gcm(256)),
]


@pytest.mark.parametrize(("found", "row"), KNOWN, ids=[row.name for _, row in KNOWN])
def test_custom_descriptors_name_their_algorithm(found, row):
    """
    By friendly name, by type name and by CNG's identifiers.
    """
    assert row == read_algorithm(found)


@pytest.mark.parametrize(
    "found",
    [
        managed(of_type("RC2"), 128, "HMACSHA256"),
        managed("Aes", 64, "HMACSHA256"),
        managed("Aes", 256, "HMACWHIRLPOOL"),
        managed(of_type("TripleDES"), 256, "HMACSHA256"),
        cng("Gcm", "3DES", 192),
        cng("Cfb", "AES", 256, "SHA256"),
        outer(
            "",
            '<encryption algorithm="AES_512_CBC" /><validation algorithm="HMACSHA256" />',
        ),
        outer("", '<encryption algorithm="AES_256_CBC" />'),
    ],
)
def test_unknown_ones_are_named_in_the_refusal(found):
    """
    A cipher, length, digest or descriptor that is not known is an error, never a guess.
    """
    with pytest.raises(KeyRingError) as caught:
        read_algorithm(found)
    assert caught.value.text


def test_the_published_header_of_triple_des_comes_out():
    """
    3DES-192-CBC with HMACSHA1, of the public documentation's page on context headers.
    """
    expected = (
        "0000000000180000000800000014000000"
        "14abb100f81e53e10e76eb189b35cf03461ddf877cd9f4b1b4d63a7555"
    )

    assert expected == triple_des_hmac(192, "sha1").context_header.hex()


ROWS = list({row.name: row for _, row in KNOWN}.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("length", [0, 1, 7, 8, 16, 5_000])
def test_payloads_under_custom_algorithms_come_back(row, length: int):
    """
    With the lengths of 1.5; every cut and every flipped byte of one is refused.
    """
    raw_id = bytes(range(16))
    aad = frame.authenticated_data(raw_id, [b"a"])
    one = sealer(CounterKdf(bytes(64)), row, raw_id, aad)
    sealed = one.seal(b"x" * length)

    assert b"x" * length == one.open(sealed)
    if row.is_gcm:
        body = 12 + length + 16
    else:
        body = row.block_bytes * (length // row.block_bytes + 2) + row.mac_bytes
    assert frame.HEADER_BYTES + 16 + body == len(sealed)
    assert sealed != one.seal(b"x" * length)
    if length < 100:
        for place in range(frame.HEADER_BYTES, len(sealed)):
            changed = bytearray(sealed)
            changed[place] ^= 1
            for bad in (bytes(changed), sealed[:place]):
                with pytest.raises(ProtectionError):
                    one.open(bad)


def test_a_ring_under_triple_des_goes_on_and_rotates_away(tmp_path):
    """
    Its payloads open and it protects; the next key is of the ring's own algorithm.
    """
    world = World(tmp_path)
    row = triple_des_hmac(192, "sha1")
    write_key(world.place, row)
    ring = world.ring()
    protector = ring.protector("a")
    sealed = protector.protect(b"x")

    assert [row.name] == [key.algorithm for key in tuple(ring.keys())]
    assert (b"x", KEY_ID) == (
        protector.unprotect(sealed).payload,
        protector.unprotect(sealed).key_id,
    )
    ring.rotate(immediate=True)
    assert "AES_256_GCM" == ring.keys()[-1].algorithm
    assert protector.unprotect(sealed).needs_renewal
