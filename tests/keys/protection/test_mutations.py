"""
Payloads altered at random, by the table: refused by one class, and nothing else is raised.
"""

from __future__ import annotations

import hmac
import random
from base64 import urlsafe_b64encode
from collections.abc import Callable

import pytest

from kagimori.crypto.aead import REFUSED
from kagimori.errors import ProtectionError
from kagimori.keys.protection import frame
from kagimori.keys.protection.algorithms import (
    ALGORITHMS,
    ProtectionAlgorithm,
    cbc_hmac,
    triple_des_hmac,
)
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.protection.unprotected import Unprotected
from tests.keys.protection.custom import write_key
from tests.keys.protection.world import World, vector_ring, vectors

# A table with a seed instead of Hypothesis, whose bookkeeping would take minutes.
IN_ALL = pytest.mark.parametrize(
    "in_all", [10_000, pytest.param(100_000, marks=pytest.mark.soak)]
)

CUSTOM = (
    cbc_hmac(128, "sha384"),
    cbc_hmac(256, "sha1"),
    triple_des_hmac(192, "sha1"),
)
ROWS = (*ALGORITHMS.values(), *CUSTOM)

Mutation = Callable[[random.Random, bytearray, bytes], object]


def flip(chance: random.Random, data: bytearray, _: bytes) -> None:
    for _n in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite(chance: random.Random, data: bytearray, _: bytes) -> None:
    at, length = chance.randrange(len(data)), chance.randint(1, 40)
    filler = chance.choice((b"\x00", b"\xff", b"\x10", b"\x01"))
    data[at : at + length] = filler * len(data[at : at + length])


def cut(chance: random.Random, data: bytearray, _: bytes) -> None:
    del data[chance.randrange(len(data)) :]


def cut_inside(chance: random.Random, data: bytearray, _: bytes) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.choice((1, 8, 16, 32))]


def grow(chance: random.Random, data: bytearray, _: bytes) -> None:
    more = chance.randbytes(chance.choice((1, 8, 16, 32, 64)))
    at = chance.choice((len(data), chance.randrange(len(data))))
    data[at:at] = more


def repeat(chance: random.Random, data: bytearray, _: bytes) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + 16]


def swap(chance: random.Random, data: bytearray, _: bytes) -> None:
    blocks = range(frame.HEADER_BYTES, len(data) - 32, 16)
    a, b = chance.choice(blocks), chance.choice(blocks)
    data[a : a + 16], data[b : b + 16] = data[b : b + 16], data[a : a + 16]


def splice(chance: random.Random, data: bytearray, other: bytes) -> None:
    at = chance.randrange(frame.HEADER_BYTES, len(data))
    data[at:] = other[at:]


def empty_tag(chance: random.Random, data: bytearray, _: bytes) -> None:
    length = chance.choice((1, 12, 16, 20, 32, 48, 64))
    data[-length:] = bytes(length)


def bare_header(chance: random.Random, data: bytearray, _: bytes) -> None:
    data[frame.HEADER_BYTES :] = chance.randbytes(chance.randint(0, 120))


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    overwrite,
    cut,
    cut_inside,
    grow,
    repeat,
    swap,
    splice,
    empty_tag,
    bare_header,
)


LENGTHS = (0, 1, 15, 16, 17, 100)


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def sealed(request, tmp_path_factory):
    """
    A ring of each algorithm, as .NET would have written it, and payloads for two purposes.
    """
    world = World(tmp_path_factory.mktemp("ring"))
    write_key(world.place, request.param)
    ring = world.ring(read_only=True)
    assert [request.param.name] == [key.algorithm for key in tuple(ring.keys())]
    return Sealed(request.param, ring)


class Sealed:
    """
    Payloads of one key for one purpose, and of the same key for another one.
    """

    def __init__(self, row: ProtectionAlgorithm, ring: ProtectionRing) -> None:
        self.row = row
        self.protector = ring.protector("a")
        other = ring.protector("b")
        self.good = [self.protector.protect_bytes(b"x" * n) for n in LENGTHS]
        self.others = [other.protect_bytes(b"x" * n) for n in LENGTHS]


@IN_ALL
def test_K1_altered_payloads_are_refused_by_one_class_and_text(
    sealed: Sealed, in_all: int
):
    """
    K1: every mutation of every algorithm, spread over 10,000 in all (100,000 in the soak).
    """
    chance = random.Random(sealed.row.name)
    texts, refused = set(), 0
    while refused < in_all // len(ROWS) + 1:
        which = chance.randrange(len(LENGTHS))
        good, other = sealed.good[which], sealed.others[which]
        data = bytearray(good)
        chance.choice(MUTATIONS)(chance, data, other)
        if data == good:
            continue
        refused += 1
        with pytest.raises(ProtectionError) as caught:
            sealed.protector.unprotect_bytes(bytes(data))
        texts.add(str(caught.value))

    assert {REFUSED} == texts
    for length, one in zip(LENGTHS, sealed.good, strict=True):
        assert b"x" * length == sealed.protector.unprotect_bytes(one).payload


def test_K1_each_byte_flipped_and_each_tag_of_zeros_is_refused(sealed: Sealed):
    """
    K1, CVE-2026-40372: no byte of a payload, tag included, may change unseen.
    """
    unprotect = sealed.protector.unprotect_bytes
    tag_bytes = sealed.row.mac_bytes or 16
    for good in sealed.good:
        for place in range(len(good)):
            for mask in (1, 0x80, 0xFF):
                data = bytearray(good)
                data[place] ^= mask
                with pytest.raises(ProtectionError):
                    unprotect(bytes(data))
        for forged in (
            good[:-tag_bytes] + bytes(tag_bytes),
            good[:-tag_bytes] + b"\xff" * tag_bytes,
            good[:-tag_bytes],
            good[:-1],
            good + b"\x00",
        ):
            with pytest.raises(ProtectionError):
                unprotect(forged)
        assert unprotect(good).payload in [b"x" * length for length in LENGTHS]


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    return World(tmp_path_factory.mktemp("ring")).ring(
        algorithm="AES_256_CBC_HMACSHA256"
    )


def misspell(chance: random.Random, text: str) -> str:
    """
    Return a text that is not the one it was.
    """
    at = chance.randrange(len(text))
    odd = chance.choice(
        ("=", "==", " ", "\n", "+", "/", "%", "\0", "鍵", "\ud800", "é")
    )
    return chance.choice(
        (
            text[:at] + odd + text[at:],
            text[:at] + odd + text[at + 1 :],
            text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :],
            text[:at],
            text + odd,
            odd + text,
            text * 2,
            text.swapcase(),
        )
    )


def test_K1_misspelt_texts_are_refused_by_one_class_and_text(ring):
    """
    K1: the text form, misspelt in every way, raises one class; plain, limited and dangerous.
    """
    chance = random.Random(2)
    protector = ring.protector("a")
    limited = protector.time_limited()

    def at_hand(text: str) -> Unprotected:
        # It says "look for the key first" where the key's id was altered.
        return protector.unprotect_at_hand(text) or protector.unprotect(text)

    reads = (
        (protector.protect(b"x" * 50), protector.unprotect),
        (protector.protect(b"x" * 50), protector.unprotect_dangerously),
        (protector.protect(b"x" * 50), at_hand),
        (limited.protect(b"x"), limited.unprotect),
    )
    texts = set()
    for _ in range(2_000):
        good, read = chance.choice(reads)
        with pytest.raises(ProtectionError) as caught:
            assert read(misspell(chance, good)) is None
        texts.add(str(caught.value))

    assert {REFUSED} == texts
    for good, read in reads:
        assert read(good) is not None


def test_K1_altered_payloads_of_dotnets_are_refused():
    """
    K1: recorded payloads, altered at random: one class, under the right and the wrong key.
    """
    chance = random.Random(3)
    cases = [case for case in vectors("payloads") if "expires" not in case]
    cases = chance.sample(cases, 60)
    rings = {(c["ring"], c["application"]) for c in cases}
    opened = {name: vector_ring(*name) for name in rings}
    for case in cases:
        ring = opened[case["ring"], case["application"]]
        protector = ring.protector(*case["purposes"])
        good = frame.from_text(case["payload"])
        other = urlsafe_b64encode(good)
        for _ in range(20):
            data = bytearray(good)
            chance.choice(MUTATIONS)(chance, data, other)
            if data == good:
                continue
            with pytest.raises(ProtectionError):
                protector.unprotect_bytes(bytes(data))
        assert case["key"] == protector.unprotect_bytes(good).key_id


def test_K1_wrong_padding_and_wrong_tag_are_the_same_refusal(sealed: Sealed):
    """
    K1: padding is looked at only under a tag that verifies, and says nothing of its own.

    Whoever forges has no such tag: an altered ciphertext never reaches the decryption, so there
    is no time in which the two could be told apart.
    """
    good = sealed.good[-1]
    told, details = [], []
    for bad in (resealed(sealed, good), good[:-1] + bytes((good[-1] ^ 1,))):
        with pytest.raises(ProtectionError) as caught:
            sealed.protector.unprotect_bytes(bad)
        told.append((type(caught.value), str(caught.value), caught.value.code))
        details.append(caught.value.detail)
        assert caught.value.__cause__ is None

    assert told[0] == told[1]
    assert bool(sealed.row.mac) == ("padding" in details[0])
    assert "padding" not in details[1]
    assert b"x" * 100 == sealed.protector.unprotect_bytes(good).payload


def resealed(sealed: Sealed, good: bytes) -> bytes:
    """
    Return the payload with its padding altered and, where there is one, a tag that verifies.
    """
    row, body = sealed.row, frame.HEADER_BYTES + 16
    if row.is_gcm:
        return good[:-17] + bytes((good[-17] ^ 1,)) + good[-16:]
    (sealer,) = sealed.protector._sealers.values()
    keys = sealer._derive(good[frame.HEADER_BYTES : body])
    text = bytearray(good[body : -row.mac_bytes])
    # The last byte of the block before: under CBC that turns the last byte of the padding.
    text[-row.block_bytes - 1] ^= 0x40
    tag = hmac.digest(keys[row.key_bytes :], bytes(text), row.mac)
    return good[:body] + bytes(text) + tag
