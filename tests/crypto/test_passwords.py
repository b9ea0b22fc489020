"""
Argon2id hashes and keys.
"""

from __future__ import annotations

import threading
import time

import pytest
from argon2 import PasswordHasher, Type, low_level

from kagimori.crypto import passwords
from kagimori.crypto.passwords import (
    MAX_SECRET_BYTES,
    derive_key,
    hash_secret,
    needs_rehash,
    verify_secret,
)
from kagimori.errors import InvalidKeyError, RefusedError


@pytest.fixture(scope="module")
def phc() -> str:
    """
    The hash of one word.
    """
    return hash_secret("correct horse")


def test_hash_is_argon2id_with_the_stated_cost(phc):
    """
    A hash is Argon2id version 1.3 of 19 MiB, two passes, one lane, under a fresh salt.
    """
    assert phc.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert phc != hash_secret("correct horse")
    assert not needs_rehash(phc)


def test_verify_tells_the_right_secret(phc):
    """
    The secret matches its hash, another one does not.
    """
    assert verify_secret(phc, "correct horse")
    assert not verify_secret(phc, "correct horsf")
    assert not verify_secret(phc, "")


def test_another_implementation_of_the_format_agrees(phc):
    """
    argon2-cffi's own hasher reads our hash, and we read its.
    """
    theirs = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

    assert theirs.verify(phc, "correct horse")
    assert verify_secret(theirs.hash("pw"), "pw")
    assert needs_rehash(theirs.hash("pw"))


@pytest.mark.parametrize(
    ("secret", "near"),
    [
        ("p\0q", "p"),
        ("x" * 80, "x" * 72),
        ("x" * MAX_SECRET_BYTES, "x" * (MAX_SECRET_BYTES - 1)),
        ("\u00e9", "e\u0301"),
        ("Pass", "pass"),
        (" pass", "pass"),
    ],
)
def test_A15_nothing_is_cut_or_normalised(secret, near):
    """
    NUL, length beyond 72, Unicode forms, case and spaces all count.
    """
    made = hash_secret(secret)

    assert verify_secret(made, secret)
    assert not verify_secret(made, near)


@pytest.mark.parametrize(
    "secret", ["x" * (MAX_SECRET_BYTES + 1), "é" * 513, "x" * 10_000_000, "\ud800"]
)
def test_A15_too_long_is_refused_before_it_is_hashed(phc, secret):
    """
    A secret beyond the limit in octets is refused when set, and when checked, without work.
    """
    with pytest.raises(RefusedError):
        hash_secret(secret)
    started = time.thread_time()
    for _ in range(100):
        assert not verify_secret(phc, secret)

    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "secret",
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ",
        "$2b$12$abcdefghijklmnopqrstuuJ1n3bB0Uz8zYQ0y8y8y8y8y8y8y8y8y",
        "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0$" + "A" * 43,
        "$argon2id$v=19$m=19456,t=4000000000,p=1$c2FsdHNhbHRzYWx0$" + "A" * 43,
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$" + "A" * 4300,
        "$argon2id$v=19$m=19456,t=2,p=1$é$" + "A" * 43,
        "$argon2i$v=19$m=4096,t=3,p=1$c2FsdHNhbHRzYWx0$" + "A" * 43,
        "$argon2id$v=19$m=x,t=2,p=1$c2FsdHNhbHRzYWx0$" + "A" * 43,
    ],
)
def test_S6_a_bad_stored_hash_matches_nothing_and_costs_nothing(stored):
    """
    A hash that is malformed, of another kind, or too costly is never run.
    """
    started = time.thread_time()

    assert not verify_secret(stored, "secret")
    assert needs_rehash(stored)
    assert time.thread_time() - started < 0.1


def test_A13_dummy_hash_is_made_once_and_costs_the_same(phc):
    """
    The dummy is one value with today's parameters, and no text matches it.
    """
    dummy = passwords.DUMMY_HASH

    assert dummy is passwords.DUMMY_HASH
    assert not needs_rehash(dummy)
    assert not verify_secret(dummy, "")
    with pytest.raises(AttributeError):
        passwords.NO_SUCH_NAME  # noqa: B018 - it is the access that raises


def test_hashing_lets_other_threads_run():
    """
    While one thread hashes, another one makes progress.
    """
    done = threading.Event()
    steps = 0

    def hash_several() -> None:
        for _ in range(3):
            hash_secret("word")
        done.set()

    worker = threading.Thread(target=hash_several)
    worker.start()
    while not done.wait(0.001):
        steps += 1
    worker.join()

    assert steps > 5


def test_derive_key_is_argon2id():
    """
    The key is what the Argon2 library gives for the same parameters, and follows each of them.
    """
    arguments = {"memory_kib": 64, "iterations": 3, "lanes": 2, "length": 32}
    key = derive_key(b"passphrase", b"0123456789abcdef", **arguments)
    expected = low_level.hash_secret_raw(
        b"passphrase", b"0123456789abcdef", 3, 64, 2, 32, Type.ID
    )

    assert expected == key
    assert key != derive_key(b"passphrasf", b"0123456789abcdef", **arguments)
    assert key != derive_key(b"passphrase", b"0123456789abcdeg", **arguments)
    for name, value in {"memory_kib": 65, "iterations": 4, "lanes": 1}.items():
        other = arguments | {name: value}
        # 65 KiB in two lanes is 64 KiB of whole blocks, yet hashed as another parameter.
        assert key != derive_key(b"passphrase", b"0123456789abcdef", **other)


@pytest.mark.parametrize(
    ("passphrase", "salt", "changed"),
    [
        (b"", b"0123456789abcdef", {}),
        (b"x" * 1025, b"0123456789abcdef", {}),
        (b"x", b"short", {}),
        (b"x", b"s" * 1025, {}),
        (b"x", b"0123456789abcdef", {"memory_kib": 2**21}),
        (b"x", b"0123456789abcdef", {"memory_kib": 7}),
        (b"x", b"0123456789abcdef", {"iterations": 0}),
        (b"x", b"0123456789abcdef", {"iterations": 10**9}),
        (b"x", b"0123456789abcdef", {"lanes": 0}),
        (b"x", b"0123456789abcdef", {"lanes": 1000}),
        (b"x", b"0123456789abcdef", {"length": 8}),
        (b"x", b"0123456789abcdef", {"length": 10**9}),
    ],
)
def test_J13_derivation_is_bounded(passphrase, salt, changed):
    """
    Parameters that a stored file could name to exhaust us are refused before any work.
    """
    arguments = {"memory_kib": 64, "iterations": 1, "lanes": 1, "length": 32}
    assert len(derive_key(b"x", b"0123456789abcdef", **arguments)) == 32
    with pytest.raises(InvalidKeyError):
        derive_key(passphrase, salt, **(arguments | changed))
