"""
Signing in with a username and a password.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import argon2
import pytest

from kagimori.crypto import passwords
from kagimori.errors import (
    ConfigError,
    ConflictError,
    InsecureConfigError,
    StoreError,
    ThrottledError,
)
from kagimori.identity.credentials import CredentialCheck
from kagimori.identity.hashing import HashPool
from kagimori.identity.password import (
    PasswordSignIn,
    hash_password,
    normalize_password,
    with_password_hash,
)
from kagimori.identity.user import (
    USER_ID_PREFIX,
    USERS,
    User,
    creation,
    new_user,
    raise_epoch,
    username_key,
)
from kagimori.oauth.throttle import Throttle
from kagimori.storage.store import Document
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore

TENANT = "default"
PASSWORD = "tin kettle 7 rooftop"
ADDRESS = "192.0.2.1"


class Events(list):
    """
    A sink that keeps what it is told.
    """

    emit = list.append


class World:
    """
    A store with the user Alice, and a way to sign her in.
    """

    def __init__(self):
        self.clock = FixedClock()
        self.memory = MemoryStore(self.clock)
        self.store = SpyStore(self.memory)
        self.pool = HashPool()
        self.events = Events()
        self.check = CredentialCheck(self.pool, Throttle())
        self.sign_in = PasswordSignIn(self.store, self.check, self.pool, self.events)

    async def add(self, username="Alice", password=PASSWORD, **fields):
        hashed = await hash_password(self.pool, password, username=username)
        user = new_user(username, now=self.clock.now(), password_hash=hashed, **fields)
        await self.memory.commit(TENANT, creation(user))
        return user

    async def enter(self, username="Alice", password=PASSWORD):
        return await self.sign_in.authenticate(
            TENANT, username, password, ADDRESS, self.clock.now()
        )


@pytest.fixture
def world():
    world = World()
    yield world
    world.pool.close()


def test_a_user_signs_in_with_one_read(world):
    """
    Username and user come by one read; name and case of the username do not matter.
    """

    async def story():
        user = await world.add()
        found = await world.enter("aLiCe")
        return user, found.value

    user, found = asyncio.run(story())

    assert user == found
    assert user.id.startswith(USER_ID_PREFIX)
    assert ["load_many"] == [call.name for call in world.store.calls]


@pytest.mark.parametrize(
    ("username", "password"),
    [
        pytest.param("Alice", "wrong", id="wrong password"),
        pytest.param("Mallory", PASSWORD, id="unknown user"),
        pytest.param("", PASSWORD, id="no name"),
        pytest.param("A" * 100_000, PASSWORD, id="endless name"),
        pytest.param("Alice\n", PASSWORD, id="control character"),
        pytest.param("Alice", "x" * 1_000_000, id="endless password"),
    ],
)
def test_A13_T11_a_refusal_is_none_and_an_event_without_the_name(
    world, username, password
):
    """
    Unknown and wrong look alike to the caller; the event names the user by id only.
    """

    async def story():
        user = await world.add()
        return user, await world.enter(username, password)

    user, found = asyncio.run(story())

    assert found is None
    (event,) = world.events
    assert "password.failed" == event.name
    assert (user.id if username == "Alice" else None) == event.fields["user"]
    assert PASSWORD not in str(event)
    assert username not in event.fields.values()


def test_a_user_without_a_password_cannot_sign_in(world):
    """
    No password set is no password at all, not an empty one.
    """

    async def story():
        user = new_user("bob", now=world.clock.now())
        await world.memory.commit(TENANT, creation(user))
        return await world.enter("bob", "x"), await world.enter("bob", "")

    assert (None, None) == asyncio.run(story())


def test_a_changed_password_ends_the_old_one_at_once(world):
    """
    The memory of a good password goes with the user's document.
    """

    async def story():
        user = await world.add()
        assert await world.enter()
        fresh = await hash_password(world.pool, "another kettle 8 roofs")

        def change(old, _):
            return with_password_hash(old, fresh), None

        await USERS.update(world.memory, TENANT, user.id, change)
        return await world.enter(), await world.enter(password="another kettle 8 roofs")

    old, new = asyncio.run(story())

    assert old is None
    assert new is not None


def test_TOK16_wrong_passwords_are_throttled_by_the_name_that_was_typed(world):
    """
    Known and unknown names are throttled alike, whatever their case.
    """

    async def story():
        await world.add()
        for name in ("alice", "nobody"):
            for _ in range(10):
                assert await world.enter(name, "wrong") is None
            with pytest.raises(ThrottledError):
                await world.enter(name.upper(), "wrong")
        world.clock.advance(timedelta(minutes=1))
        return await world.enter()

    assert asyncio.run(story()) is not None


def test_a_username_belongs_to_one_user(world):
    """
    The store refuses a second user of the same name, in any case or width.
    """

    async def story():
        await world.add("Alice")
        for name in ("alice", "ＡＬＩＣＥ"):
            with pytest.raises(ConflictError):
                await world.add(name)
        await world.add("alicia")

    asyncio.run(story())

    assert username_key("Alice") == username_key("ＡＬＩＣＥ")


@pytest.mark.parametrize("name", ["", " alice", "alice ", "a" * 129, "a\nb", "a\0b"])
def test_what_cannot_be_a_username(name):
    """
    Empty, padded, endless and unprintable names are refused.
    """
    with pytest.raises(ConfigError):
        new_user(name, now=FixedClock().now())


def test_A15_one_password_from_all_keyboards(world):
    """
    A password typed as composed or decomposed characters is the same password.
    """
    composed, decomposed = "clé à molette 42", "cle\u0301 a\u0300 molette\u00a042"

    async def story():
        await world.add(password=composed)
        return await world.enter(password=decomposed)

    assert asyncio.run(story()) is not None
    assert normalize_password(composed) == normalize_password(decomposed)
    assert "plain  ascii" == normalize_password("plain  ascii")


def old_hash(password):
    return argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024).hash(password)


def test_an_old_hash_is_renewed_at_sign_in(world):
    """
    A hash of weaker parameters is replaced when its password proves good.
    """

    async def story():
        user = new_user(
            "carol", now=world.clock.now(), password_hash=old_hash(PASSWORD)
        )
        await world.memory.commit(TENANT, creation(user))
        assert await world.enter("carol")
        renewed = await USERS.get(world.memory, TENANT, user.id)
        assert await world.enter("carol")
        return user, renewed.value

    user, renewed = asyncio.run(story())

    assert user.password_hash != renewed.password_hash
    assert not passwords.needs_rehash(renewed.password_hash)


def test_a_hash_that_cannot_be_renewed_still_signs_in(world):
    """
    A store that refuses the better hash does not refuse the user.
    """

    async def fail(*_):
        raise StoreError("disk full")

    async def story():
        user = new_user(
            "carol", now=world.clock.now(), password_hash=old_hash(PASSWORD)
        )
        await world.memory.commit(TENANT, creation(user))
        world.memory.commit = fail
        return await world.enter("carol")

    assert asyncio.run(story()) is not None


def test_renewing_a_hash_never_overwrites_a_changed_password(world):
    """
    A password that was changed during the sign-in stays changed.
    """

    async def story():
        user = await world.add("carol")
        await world.sign_in._rehash(TENANT, user.id, "what it was before", "x")
        after = await USERS.get(world.memory, TENANT, user.id)
        return user, after.value

    user, after = asyncio.run(story())

    assert user == after


def test_K10_a_weak_password_is_not_hashed(world):
    """
    `hash_password` refuses weak passwords unless it is told that this is the demo world.
    """
    with pytest.raises(InsecureConfigError):
        asyncio.run(hash_password(world.pool, "test"))
    assert asyncio.run(hash_password(world.pool, "test", known=True))


def test_raising_the_epoch_keeps_the_rest():
    """
    The change raises the epoch by one, on condition of the version that was read.
    """
    user = User(id="usr_1", username="a", created=FixedClock().now(), epoch=4)
    body = USERS.put(user.id, user, 0).body
    change = raise_epoch(Document("user", user.id, 9, body))

    assert 9 == change.expect
    raised = USERS.decode(Document("user", user.id, 10, change.body)).value
    assert 5 == raised.epoch
    assert "a" == raised.username


def test_a_user_shows_no_hash():
    """
    The repr of a user holds no password hash.
    """
    user = User(
        id="usr_1", username="a", created=FixedClock().now(), password_hash="$argon2"
    )

    assert "$argon2" not in repr(user)
    assert "$argon2" not in f"{user}"
