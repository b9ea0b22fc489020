"""
Wrapping by a passphrase.
"""

from __future__ import annotations

import base64
import hashlib
import time

import pytest
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kagimori.errors import ConfigError, KeyWrapError
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers import passphrase as module
from kagimori.wrappers.passphrase import Derivation, PassphraseWrapper

PASSPHRASE = b"correct horse battery staple"
NAMESPACE = "{urn:kagimori:ring:1}"


class TestPassphraseWrapper(KeyWrapperConformance):
    def make_wrapper(self, place):
        return PassphraseWrapper(PASSPHRASE, source="env:RING")

    def make_other(self, place):
        return PassphraseWrapper(PASSPHRASE + b"r", source="env:RING")

    def secrets(self):
        return (PASSPHRASE.decode(), hashlib.sha256(PASSPHRASE).hexdigest())


def test_the_envelope_is_as_documented():
    """
    A reader that was written from the documentation alone opens it.
    """
    wrapped = PassphraseWrapper(PASSPHRASE).wrap(SECRET, CONTEXT)
    root = xml.parse(wrapped.child)
    derivation = root.find(f"{NAMESPACE}derivation")
    value = root.find(f"{NAMESPACE}value")
    numbers = [int(derivation.get(n)) for n in ("memoryKiB", "iterations", "lanes")]
    kek = hash_secret_raw(
        PASSPHRASE,
        base64.b64decode(derivation.get("salt")),
        time_cost=numbers[1],
        memory_cost=numbers[0],
        parallelism=numbers[2],
        hash_len=32,
        type=Type.ID,
        version=19,
    )
    lines = [
        "kagimori-passphrase-1",
        *map(str, numbers),
        derivation.get("salt"),
        CONTEXT,
    ]
    opened = AESGCM(kek).decrypt(
        base64.b64decode(value.get("nonce")),
        base64.b64decode(value.text),
        "\n".join(lines).encode(),
    )

    assert f"{NAMESPACE}passphraseKey" == root.tag
    assert ("argon2id", "19") == (
        derivation.get("algorithm"),
        derivation.get("version"),
    )
    assert "1" == root.get("version")
    assert [65536, 3, 4] == numbers
    assert meaning(SECRET) == meaning(opened.decode())


@pytest.fixture
def derivations(monkeypatch):
    """
    Count derivations; they still happen.
    """
    seen = []
    real = module.derive_key

    def counted(*args, **kwargs):
        seen.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "derive_key", counted)
    return seen


def test_a_ring_costs_one_derivation(derivations):
    """
    All keys of a ring that one wrapper made share a salt; opening them derives once, and a
    wrapper that has opened one wraps the next under the same.
    """
    first = PassphraseWrapper(PASSPHRASE)
    ring = [first.wrap(SECRET, f"{n}") for n in range(5)]
    assert 1 == len(derivations)

    second = PassphraseWrapper(PASSPHRASE)
    for number, wrapped in enumerate(ring):
        second.unwrap(wrapped, f"{number}")
    third = PassphraseWrapper(PASSPHRASE)
    third.unwrap(second.wrap(SECRET, "5"), "5")
    third.unwrap(ring[0], "0")
    assert 3 == len(derivations)


def altered(wrapped, **attributes):
    root = xml.parse(wrapped.child)
    root.find(f"{NAMESPACE}derivation").attrib.update(attributes)
    return WrappedSecret(wrapped.decryptor_type, xml.write(root))


@pytest.mark.parametrize(
    "attributes",
    [
        {"memoryKiB": "1048577"},
        {"memoryKiB": "999999999"},
        {"memoryKiB": "1048576", "iterations": "5"},
        {"memoryKiB": "8"},
        {"memoryKiB": "-1"},
        {"memoryKiB": "0x10000"},
        {"memoryKiB": "65536.0"},
        {"memoryKiB": "99999999999999999999"},
        {"iterations": "17"},
        {"iterations": "0"},
        {"lanes": "17"},
        {"lanes": ""},
        {"salt": "AAAA"},
        {"salt": "*"},
        {"salt": ""},
        {"version": "16"},
        {"algorithm": "argon2i"},
    ],
)
def test_hostile_parameters_cost_nothing(derivations, attributes):
    """
    What a hostile ring asks for is bounded before memory or time is spent.
    """
    wrapped = PassphraseWrapper(PASSPHRASE).wrap(SECRET, CONTEXT)
    derivations.clear()
    started = time.perf_counter()
    with pytest.raises(KeyWrapError):
        PassphraseWrapper(PASSPHRASE).unwrap(altered(wrapped, **attributes), CONTEXT)

    assert [] == derivations
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "attributes", [{"memoryKiB": "65537"}, {"iterations": "2"}, {"lanes": "3"}]
)
def test_K1_parameters_are_authenticated(attributes):
    """
    K1: an envelope whose parameters were changed within bounds does not open.
    """
    wrapped = PassphraseWrapper(PASSPHRASE).wrap(SECRET, CONTEXT)

    with pytest.raises(KeyWrapError):
        PassphraseWrapper(PASSPHRASE).unwrap(altered(wrapped, **attributes), CONTEXT)


def test_cheap_parameters_are_read_and_not_written():
    """
    A ring made with less is read; what is wrapped from then on has today's cost.
    """
    cheap = PassphraseWrapper(PASSPHRASE)
    cheap._latest = Derivation(bytes(16), memory_kib=8 * 1024, iterations=1, lanes=1)
    wrapped = cheap.wrap(SECRET, CONTEXT)
    wrapper = PassphraseWrapper(PASSPHRASE)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))

    newer = xml.parse(wrapper.wrap(SECRET, CONTEXT).child)
    assert "65536" == newer.find(f"{NAMESPACE}derivation").get("memoryKiB")


@pytest.mark.parametrize("passphrase", [b"", b"x" * 1025])
def test_a_passphrase_has_a_length(passphrase):
    """
    An empty passphrase and an endless one are refused when the wrapper is made.
    """
    with pytest.raises(ConfigError):
        PassphraseWrapper(passphrase)


def test_memory_that_cannot_be_had_may_be_had_later(monkeypatch):
    """
    Where Argon2id gets no memory the error is a passing one.
    """

    def refused(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(module, "derive_key", refused)
    with pytest.raises(KeyWrapError) as caught:
        PassphraseWrapper(PASSPHRASE).wrap(SECRET, CONTEXT)

    assert caught.value.transient
