"""
What is remembered of good credentials, what is hashed, and what is refused before.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.crypto import passwords
from kagimori.errors import BusyError, ThrottledError
from kagimori.identity.credentials import (
    LATELY,
    Attempt,
    CredentialCheck,
    Stored,
    Subject,
    digest_of_generated,
)
from kagimori.identity.hashing import HashPool
from kagimori.oauth.throttle import Throttle, ThrottleLimits
from kagimori.testing.clock import FixedClock

CLIENT = Subject("client", "default", "app")
SECRET = "a secret that somebody chose"
HERE, THERE = "192.0.2.1", "198.51.100.7"


class CountingPool(HashPool):
    """
    A pool that says how often it hashed.
    """

    def __init__(self, **bounds):
        super().__init__(**bounds)
        self.hashed = 0

    async def verify(self, phc, text):
        self.hashed += 1
        return await super().verify(phc, text)

    async def waste(self):
        self.hashed += 1
        await super().waste()


@pytest.fixture(scope="module")
def chosen():
    return (Stored(passwords.hash_secret(SECRET)),)


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def pool():
    pool = CountingPool()
    yield pool
    pool.close()


@pytest.fixture
def check(pool):
    return CredentialCheck(pool, Throttle())


def attempt(clock, secret=SECRET, *, subject=CLIENT, address=HERE):
    return Attempt(subject, secret, address, clock.now())


def test_only_the_first_use_of_a_good_secret_costs_a_hash(check, pool, clock, chosen):
    """
    A chosen secret is hashed once, then remembered.
    """

    async def story():
        return [await check.match(attempt(clock), 1, chosen) for _ in range(5)]

    found = asyncio.run(story())

    assert [chosen[0]] * 5 == found
    assert 1 == pool.hashed


def test_every_wrong_secret_costs_one_hash(check, pool, clock, chosen):
    """
    Wrong guesses are never remembered.
    """

    async def story():
        return [await check.match(attempt(clock, "wrong"), 1, chosen) for _ in range(3)]

    assert [None] * 3 == asyncio.run(story())
    assert 3 == pool.hashed
    assert 0 == check.remembered


def test_a_new_version_of_the_document_drops_the_memory(check, pool, clock, chosen):
    """
    After a change of the client its secret is judged anew, and an old one fails.
    """

    async def story():
        await check.match(attempt(clock), 1, chosen)
        again = await check.match(attempt(clock), 2, chosen)
        gone = await check.match(attempt(clock), 3, ())
        return again, gone

    again, gone = asyncio.run(story())

    assert chosen[0] == again
    assert gone is None
    assert 3 == pool.hashed


def test_a_remembered_secret_still_expires(check, clock):
    """
    A memory does not outlive the secret's own expiry.
    """
    generated = "generated-secret"
    stored = (
        Stored(digest_of_generated(generated), clock.now() + timedelta(minutes=1)),
    )

    async def story():
        before = await check.match(attempt(clock, generated), 1, stored)
        clock.advance(timedelta(minutes=1))
        return before, await check.match(attempt(clock, generated), 1, stored)

    before, after = asyncio.run(story())

    assert stored[0] == before
    assert after is None


def test_several_secrets_stand_side_by_side(check, pool, clock, chosen):
    """
    Each of a client's secrets passes; a generated one costs no slow hash.
    """
    stored = (*chosen, Stored(digest_of_generated("generated-secret")))

    async def story():
        return (
            await check.match(attempt(clock, "generated-secret"), 1, stored),
            pool.hashed,
            await check.match(attempt(clock), 1, stored),
        )

    generated, hashed, picked = asyncio.run(story())

    assert (stored[1], 0, stored[0]) == (generated, hashed, picked)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param((), id="unknown, or no secret"),
        pytest.param((Stored(digest_of_generated("other")),), id="generated"),
        pytest.param((Stored(passwords.DUMMY_HASH),), id="chosen"),
    ],
)
def test_T9_A13_every_refusal_costs_the_same(check, pool, clock, stored):
    """
    Unknown, generated and chosen: a refusal costs exactly one slow hash.
    """
    assert asyncio.run(check.match(attempt(clock, "wrong"), 1, stored)) is None
    assert 1 == pool.hashed


@pytest.mark.parametrize(
    ("secret", "hashed"),
    [
        pytest.param("x" * 1025, 0, id="1025 bytes"),
        pytest.param("é" * 513, 0, id="1026 bytes in 513 characters"),
        pytest.param("x" * 1_000_000, 0, id="a megabyte"),
        pytest.param("\ud800", 0, id="no Unicode text"),
        pytest.param("x" * 1024, 1, id="1024 bytes are hashed"),
        pytest.param("nul\0inside", 1, id="NUL is a character"),
    ],
)
def test_A15_too_long_a_secret_is_refused_before_hashing(
    check, pool, clock, chosen, secret, hashed
):
    """
    The cap is in bytes and comes before the hash, at login too.
    """
    assert asyncio.run(check.match(attempt(clock, secret), 1, chosen)) is None
    assert hashed == pool.hashed


def test_A15_no_truncation(check, clock):
    """
    Two secrets that agree in their first 72 bytes are two secrets.
    """
    stored = (Stored(passwords.hash_secret("x" * 72 + "right")),)

    async def story():
        return (
            await check.match(attempt(clock, "x" * 72 + "wrong"), 1, stored),
            await check.match(attempt(clock, "x" * 72 + "right"), 1, stored),
        )

    assert (None, stored[0]) == asyncio.run(story())


def test_A15_beyond_the_queue_the_caller_is_sent_away(clock, chosen):
    """
    Of fifty different guesses at once a few are hashed, the others are told to come back.
    """
    pool = CountingPool(threads=2, queue=3)
    check = CredentialCheck(pool, Throttle(ThrottleLimits(subject_per_minute=1000)))

    async def story():
        guesses = [
            check.match(attempt(clock, f"guess {n}"), 1, chosen) for n in range(50)
        ]
        return await asyncio.gather(*guesses, return_exceptions=True)

    found = asyncio.run(story())
    pool.close()

    assert 5 == found.count(None)
    assert 45 == sum(isinstance(each, BusyError) for each in found)


def test_a_herd_with_one_good_secret_is_hashed_once(check, pool, clock, chosen):
    """
    Fifty first requests at once with the same good secret all pass at the cost of one hash.
    """

    async def story():
        herd = [check.match(attempt(clock), 1, chosen) for _ in range(50)]
        return await asyncio.gather(*herd)

    assert [chosen[0]] * 50 == asyncio.run(story())
    assert 1 == pool.hashed


def test_whoever_hangs_up_does_not_take_the_herd_along(check, pool, clock, chosen):
    """
    When the first of several equal attempts is cancelled, the next one does the work.
    """

    async def story():
        first = asyncio.create_task(check.match(attempt(clock), 1, chosen))
        await asyncio.sleep(0)
        second = asyncio.create_task(check.match(attempt(clock), 1, chosen))
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(first, second, return_exceptions=True)

    first, second = asyncio.run(story())

    assert isinstance(first, asyncio.CancelledError)
    assert chosen[0] == second
    assert 2 == pool.hashed


def test_TOK16_guesses_made_at_once_do_not_outrun_the_limit(check, clock, chosen):
    """
    Of thirty different guesses at the same instant ten are judged, as if one after another.
    """

    async def story():
        guesses = [
            check.match(attempt(clock, f"guess {n}"), 1, chosen) for n in range(30)
        ]
        return await asyncio.gather(*guesses, return_exceptions=True)

    found = asyncio.run(story())

    assert 10 == found.count(None)
    assert 20 == sum(isinstance(each, ThrottledError) for each in found)


def test_TOK16_beyond_the_limit_nothing_is_hashed(check, pool, clock, chosen):
    """
    The eleventh guess within a minute is refused before any hashing, even a right one.
    """

    async def story():
        for n in range(10):
            await check.match(attempt(clock, f"guess {n}"), 1, chosen)
        with pytest.raises(ThrottledError) as caught:
            await check.match(attempt(clock), 1, chosen)
        return caught.value.retry_after

    wait = asyncio.run(story())

    assert 60 == wait
    assert 10 == pool.hashed


def test_TOK16_good_credentials_from_the_same_address_stay_good(check, clock, chosen):
    """
    Who was good from an address lately is exempt there, and only there.
    """

    async def story():
        await check.match(attempt(clock), 1, chosen)
        for address in (HERE, THERE):
            for n in range(10):
                await check.match(
                    attempt(clock, f"guess {n}", address=address), 1, chosen
                )
        here = await check.match(attempt(clock), 1, chosen)
        with pytest.raises(ThrottledError):
            await check.match(attempt(clock, address=THERE), 1, chosen)
        return here

    assert chosen[0] == asyncio.run(story())


def test_TOK16_the_exemption_ends_with_the_memory_of_the_address(check, clock, chosen):
    """
    An address that the credential was good from long ago is not exempt.
    """

    async def story():
        await check.match(attempt(clock), 1, chosen)
        clock.advance(LATELY + timedelta(seconds=1))
        for n in range(10):
            await check.match(attempt(clock, f"guess {n}"), 1, chosen)
        with pytest.raises(ThrottledError):
            await check.match(attempt(clock), 1, chosen)
        clock.advance(timedelta(minutes=1))
        return await check.match(attempt(clock), 1, chosen)

    assert chosen[0] == asyncio.run(story())


def test_the_memory_is_bounded(pool, clock):
    """
    Of more good credentials than there is room for, the least recently used is forgotten.
    """
    check = CredentialCheck(pool, Throttle(), capacity=2)

    async def story():
        for name in ("a", "b", "a", "c", "a"):
            stored = (Stored(digest_of_generated(name)),)
            subject = Subject("client", "default", name)
            await check.match(attempt(clock, name, subject=subject), 1, stored)

    asyncio.run(story())

    assert 2 == check.remembered


def test_the_addresses_of_a_credential_are_bounded(check, clock):
    """
    A credential used from very many addresses remembers the latest ones.
    """
    stored = (Stored(digest_of_generated("good")),)

    async def story():
        for n in range(100):
            await check.match(attempt(clock, "good", address=f"10.0.0.{n}"), 1, stored)

    asyncio.run(story())

    (known,) = check._known.values()
    assert 16 == len(known._places)


def test_no_secret_is_kept_as_text(check, clock, chosen):
    """
    What is remembered holds neither the secret nor a plain hash of it.
    """
    asyncio.run(check.match(attempt(clock), 1, chosen))

    (mark,) = check._known
    assert SECRET.encode() not in mark
    assert bytes.fromhex(digest_of_generated(SECRET).removeprefix("sha256:")) != mark
    assert SECRET not in repr(attempt(clock))


def test_a_memory_belongs_to_one_subject(check, clock, chosen):
    """
    The same secret of another client, tenant or kind is judged by itself.
    """
    others = [
        Subject("client", "default", "other"),
        Subject("client", "second", "app"),
        Subject("account", "default", "app"),
    ]

    async def story():
        await check.match(attempt(clock), 1, chosen)
        return [
            await check.match(attempt(clock, subject=subject), 1, ())
            for subject in others
        ]

    assert [None] * 3 == asyncio.run(story())


def test_forgetting_drops_everything(check, clock, chosen):
    """
    After `forget` the next use is judged anew.
    """
    asyncio.run(check.match(attempt(clock), 1, chosen))
    check.forget()

    assert 0 == check.remembered


def test_a_closed_pool_sends_away():
    """
    While the server stops, a new hash is refused as if it were busy.
    """
    pool = HashPool()
    pool.close()

    with pytest.raises(BusyError):
        asyncio.run(pool.hash("anything"))
