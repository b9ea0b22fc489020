"""
Known answers of real ASP.NET Core Data Protection.

`tests/vectors/aspnet/README.md` says what made the files; the published values are those of
`aspnet-data-protection.md` sections 1.4 and 6, each with its source in dotnet/aspnetcore.
"""

from __future__ import annotations

import functools
import json
from base64 import b64decode
from datetime import UTC, datetime

import pytest

from kagimori.crypto.kdf import CounterKdf
from kagimori.crypto.pkcs12 import load_identity
from kagimori.errors import PayloadExpiredError, ProtectionError
from kagimori.keys.protection import frame, ticks
from kagimori.keys.protection.algorithms import ALGORITHMS, cbc_hmac, gcm
from kagimori.keys.protection.derivation import sealer
from kagimori.keys.protection.protector import split_expiry
from kagimori.wrappers.certificate import CertificateWrapper
from tests.keys.protection.world import VECTORS, vector_ring, vectors

PUBLISHED = json.loads((VECTORS / "published.json").read_text("utf-8"))
KEY_ID = "3d6d01fd-c0e7-44ae-82dd-013b996b4093"


@functools.cache
def ring_of(name: str, application: str | None):
    return vector_ring(name, application)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_context_headers_are_dotnets(name: str):
    """
    The header that binds a derived key to its algorithm comes out to the byte.
    """
    expected = PUBLISHED["context_headers"][name]

    assert expected == ALGORITHMS[name].context_header.hex()


@pytest.mark.parametrize(
    ("name", "plaintext", "payload"),
    [(name, "Hello, Data Protection!", p) for name, p in PUBLISHED["payloads"].items()]
    + [(name, "", p) for name, p in PUBLISHED["empty_payloads"].items()],
)
def test_published_payloads_open(name: str, plaintext: str, payload: str):
    """
    A payload of fixed randomness opens under each algorithm, the empty one too.
    """
    raw_id = frame.id_bytes(KEY_ID)
    purposes = [
        frame.purpose_bytes(p) for p in ("kagimori-app", "purpose1", "purpose2")
    ]
    aad = frame.authenticated_data(raw_id, purposes)
    opened = sealer(CounterKdf(bytes(range(64))), ALGORITHMS[name], raw_id, aad)

    assert plaintext.encode() == opened.open(frame.from_text(payload))


def test_published_bodies_open():
    """
    Bodies of .NET's own encryptor tests open: AES-256-CBC-HMACSHA256 and AES-128-GCM.
    """
    kdf, aad, header = CounterKdf(b"master key"), bytes.fromhex("06050403"), bytes(20)
    cbc = b64decode(
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+36j4yWJOjBgOJxmYDYwhLnYqFxw+9mNh/"
        "cudyPrWmJmw4d/dmGaLJLLut2udiAAA="
    )
    sealed = bytes.fromhex(
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b43b6918d0d66d9a1d9442d5d8e41da39"
        "609ce8"
    )

    for row, body in ((cbc_hmac(256, "sha256"), cbc), (gcm(128), sealed)):
        opened = sealer(kdf, row, bytes(16), aad)
        assert b"\x02\x03\x04" == opened.open(header + body)
        for bad in (body[:10], b"\x01" + body[1:], body + b"x"):
            with pytest.raises(ProtectionError):
                opened.open(header + bad)
        with pytest.raises(ProtectionError):
            sealer(kdf, row, bytes(16), b"other").open(header + body)


def test_the_published_aad_comes_out():
    """
    Key id and five purposes, one beyond 127 bytes and one not ASCII.
    """
    purposes = [
        "my sample string",
        "©®±µ¶",
        "my other sample string",
        (
            "CfDJ8H5oH_fp1QNBmvs-OWXxsVoV30hrXeI4-PI4p1VZytjsgd0DTstMdtTZbFtm2dKHvsBlDCv7TiEWKztZf8fb"
            "48pUgBgUE2SeYV3eOUXvSfNWU0D8SmHLy5KEnwKKkZKqudDhCnjQSIU7mhDliJJN1e4"
        ),
        ".",
    ]
    expected = b64decode(
        "CfDJ8AAAAAAAAAAAAAAAAAAAAAAAAAAFEG15IHNhbXBsZSBzdHJpbmcKwqnCrsKxwrXCthZteSBvdGhlciBzYW1w"
        "bGUgc3RyaW5nmwFDZkRKOEg1b0hfZnAxUU5CbXZzLU9XWHhzVm9WMzBoclhlSTQtUEk0cDFWWnl0anNnZDBEVHN0"
        "TWR0VFpiRnRtMmRLSHZzQmxEQ3Y3VGlFV0t6dFpmOGZiNDhwVWdCZ1VFMlNlWVYzZU9VWHZTZk5XVTBEOFNtSEx5"
        "NUtFbndLS2taS3F1ZERoQ25qUVNJVTdtaERsaUpKTjFlNAEu"
    )
    raw = [frame.purpose_bytes(purpose) for purpose in purposes]

    assert expected == frame.authenticated_data(bytes(16), raw)


@pytest.mark.parametrize(
    ("number", "length"),
    [
        (0, 1),
        (127, 1),
        (128, 2),
        (16383, 2),
        (16384, 3),
        (2097151, 3),
        (2097152, 4),
        (268435455, 4),
        (268435456, 5),
        (4294967295, 5),
    ],
)
def test_seven_bit_numbers_have_dotnets_lengths(number: int, length: int):
    """
    Lengths of purposes are written in groups of seven bits.
    """
    assert length == len(frame.seven_bit(number))


def test_a_payload_of_a_public_net_8_application_opens():
    """
    Values recorded in the tests of bitwarden/server open, and not without the discriminator.
    """
    key_id = "6417072d-bd2e-4737-8995-fd280fe00251"
    kdf = CounterKdf(
        b64decode(
            "4spzUFTZ6BOimQExKLSlcZmN7JmzsZP+8B7ynFMlwss5eCXWXDojqy+zq0ov1t0ImMgU5P5PqO3ZusXu5jPcvQ"
            "=="
        )
    )
    payload = frame.from_text(
        "CfDJ8C0HF2QuvTdHiZX9KA_gAlGVSrFxAFk2m-WNRwn3MInU65VHLvlnNTKxpGKXDLSY3mgis0FninNa5hpRGIi5"
        "KS215GmhPnm-TvuikZr1N3-ib42KqADgmo1i5PTgZohmRA"
    )
    raw_id, row = frame.id_bytes(key_id), ALGORITHMS["AES_256_CBC_HMACSHA256"]

    named = frame.authenticated_data(raw_id, [b"Bitwarden", b"Test"])
    assert b"MyTestData" == sealer(kdf, row, raw_id, named).open(payload)
    bare = frame.authenticated_data(raw_id, [b"Test"])
    with pytest.raises(ProtectionError):
        sealer(kdf, row, raw_id, bare).open(payload)


def test_the_time_limited_header_is_dotnets():
    """
    Ticks of the year 2000 and of "no expiry" are read; seven bytes hold no expiry.
    """
    rest = bytes.fromhex("0102030405")
    in_2000 = bytes.fromhex("08c1220247e44000")
    never = bytes.fromhex("2bca2875f4373fff")

    payload, expiry = split_expiry(in_2000 + rest)
    assert (rest, datetime(2000, 1, 1, tzinfo=UTC)) == (
        payload,
        ticks.to_datetime(expiry),
    )
    assert (rest, ticks.MOST) == split_expiry(never + rest)
    for bad in (
        in_2000[:7],
        b"",
        b"\xff" * 8 + rest,
        (ticks.MOST + 1).to_bytes(8, "big"),
    ):
        with pytest.raises(ProtectionError):
            split_expiry(bad)


@pytest.mark.parametrize("ring", sorted({case["ring"] for case in vectors("payloads")}))
def test_every_payload_of_dotnets_opens(ring: str):
    """
    1,080 payloads over all algorithms and purposes open to their plaintext and expiry.
    """
    cases = [case for case in vectors("payloads") if ring == case["ring"]]
    expired = 0
    for case in cases:
        protector = ring_of(ring, case["application"]).protector(*case["purposes"])
        plaintext, expires = b64decode(case["plaintext"]), case.get("expires")
        if expires is None:
            opened = protector.unprotect(case["payload"])
        else:
            inner = protector.protector(frame.TIME_LIMITED).unprotect(case["payload"])
            expiry = split_expiry(inner.payload)[1]
            expected = ticks.MOST if expires == "never" else ticks.parse(expires)
            assert expected == expiry
            if expires.startswith("2001"):
                expired += 1
                with pytest.raises(PayloadExpiredError):
                    protector.time_limited().unprotect(case["payload"])
                continue
            opened = protector.time_limited().unprotect(case["payload"])
            assert (expires == "never") == (opened.expires is None)
        assert plaintext == opened.payload
        assert case["key"] == opened.key_id

    assert len(cases) > expired > 0


@pytest.mark.parametrize("ring", sorted({case["ring"] for case in vectors("refused")}))
def test_everything_that_dotnet_refuses_is_refused(ring: str):
    """
    K1: 418 altered, cut and misdirected payloads are refused by one class and one text.
    """
    application = next(
        case["application"] for case in vectors("payloads") if ring == case["ring"]
    )
    cases = [case for case in vectors("refused") if ring == case["ring"]]
    texts = set()
    for case in cases:
        for name in {application, None}:
            protector = ring_of(ring, name).protector(*case["purposes"])
            with pytest.raises(ProtectionError) as caught:
                protector.unprotect(case["payload"])
            texts.add(caught.value.text)

    assert len(cases) > 100
    assert 1 == len(texts)


@pytest.mark.parametrize(
    "case",
    [c for c in vectors("rings") if c["wrapped"] != "azure-key-vault"],
    ids=lambda case: case["ring"],
)
def test_rings_of_dotnet_are_read(case):
    """
    Folder and document, clear, under the null encryptor and under certificates: all keys open.
    """
    wrapper = None
    if case["wrapped"] == "certificate":
        data = (VECTORS / "rings" / case["pfx"]).read_bytes()
        wrapper = CertificateWrapper(load_identity(data, case["pfx_password"].encode()))
    ring = vector_ring(case["ring"], case["application"], wrapper=wrapper)
    protector = ring.protector(*case["purposes"])

    for payload in case["payloads"]:
        opened = protector.unprotect(payload["payload"])
        assert b64decode(payload["plaintext"]) == opened.payload
        assert payload["key"] == opened.key_id
    assert {p["key"] for p in case["payloads"]} == {
        key.id for key in tuple(ring.keys())
    }
    assert ring.problem is None


def test_revocations_of_dotnet_hold():
    """
    Revoked by id and by date: refused, and read only where that is said to be dangerous.
    """
    case = vectors("revoked")
    ring = vector_ring(case["ring"], case["application"])
    protector = ring.protector(*case["purposes"])
    states = {key.id: key.state.value == "revoked" for key in tuple(ring.keys())}

    assert case["revoked"] == states
    for payload in case["payloads"]:
        text, plaintext = payload["payload"], b64decode(payload["plaintext"])
        if payload["revoked"]:
            with pytest.raises(ProtectionError) as caught:
                protector.unprotect(text)
            assert "revoked" in caught.value.detail
        else:
            assert plaintext == protector.unprotect(text).payload
        opened = protector.unprotect_dangerously(text)
        assert (plaintext, payload["dangerous_was_revoked"]) == (
            opened.payload,
            opened.was_revoked,
        )
        assert opened.needs_renewal or opened.key_id == ring.current_key_id
