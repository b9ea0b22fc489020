"""
What races or must be single use, on the real store: several connections to one file.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.errors import ConflictError, OAuthError
from kagimori.identity.user import creation, new_user
from kagimori.oauth.assembly import assemble
from kagimori.oauth.client import CLIENTS
from kagimori.storage.sqlite import SqliteStore
from kagimori.testing.clock import FixedClock
from tests.oauth.world import World, claims_of


class Nodes:
    """
    Two nodes on one database file, each with its own connection and memory.
    """

    def __init__(self, path):
        self.path = path
        self.clock = FixedClock()

    async def __aenter__(self):
        self.world = World(store=self.open(), clock=self.clock)
        self.second = self.open()
        await self.world.start()
        self.services = [
            self.world.services,
            assemble(
                self.second, self.world.rings, self.world.ring, pool=self.world.pool
            ),
        ]
        return self

    async def __aexit__(self, *_):
        await self.second.close()
        await self.world.memory.close()
        self.world.pool.close()

    def open(self):
        return SqliteStore.open(self.path / "test.db", clock=self.clock)

    async def race(self, client, form, times):
        """
        Send one request many times at once, in turns to each node.
        """
        request = self.world.shown(client, form)
        tasks = [self.services[n % 2].token.token(request) for n in range(times)]
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def nodes(tmp_path):
    return Nodes(tmp_path)


def test_T4_T5_one_refresh_token_at_two_nodes_at_once(nodes):
    """
    R1 on two connections: every answer is good and has the same successor.
    """

    async def story():
        async with nodes:
            first = await nodes.world.family()
            form = {
                "grant_type": "refresh_token",
                "refresh_token": first.refresh_token,
            }
            return await nodes.race("web", form, 50)

    answers = asyncio.run(story())

    assert 1 == len({answer.refresh_token for answer in answers})
    assert 50 == len({claims_of(answer.access_token)["jti"] for answer in answers})


def test_T7_one_assertion_at_two_nodes_at_once(nodes):
    """
    Exactly one of many uses succeeds, whichever node it comes to.
    """

    async def story():
        async with nodes:
            form = {"grant_type": "client_credentials", **nodes.world.asserted()}
            return await nodes.race(None, form, 8)

    found = asyncio.run(story())

    assert 1 == sum(not isinstance(each, OAuthError) for each in found)


def test_REV4_R7_a_revocation_at_one_node_and_a_refresh_at_the_other(nodes):
    """
    After the revocation's success no token of the family works at either node.
    """

    async def story():
        async with nodes:
            world = nodes.world
            for _ in range(10):
                first = await world.family()
                refresh = world.shown(
                    "web",
                    {
                        "grant_type": "refresh_token",
                        "refresh_token": first.refresh_token,
                    },
                )
                revoke = world.shown("web", {"token": first.refresh_token})
                raced, _ = await asyncio.gather(
                    nodes.services[0].token.token(refresh),
                    nodes.services[1].revocation.revoke(revoke),
                    return_exceptions=True,
                )
                tokens = [first.refresh_token]
                if not isinstance(raced, OAuthError):
                    tokens.append(raced.refresh_token)
                for text in tokens:
                    with pytest.raises(OAuthError) as caught:
                        await world.refresh("web", text)
                    assert "invalid_grant" == caught.value.error

    asyncio.run(story())


def test_a_username_is_taken_once_by_two_at_once(nodes):
    """
    Two operators who make the same user at once: one wins, the other is told.
    """

    async def story():
        async with nodes:
            made = [new_user("bob", now=nodes.clock.now()) for _ in range(2)]
            return await asyncio.gather(
                nodes.world.memory.commit("default", creation(made[0])),
                nodes.second.commit("default", creation(made[1])),
                return_exceptions=True,
            )

    found = asyncio.run(story())

    assert 1 == sum(isinstance(each, ConflictError) for each in found)


def test_T15_a_disabled_client_is_seen_at_the_other_node_after_a_poll(nodes):
    """
    The bound of propagation is the poll of the change counter, and it is cheap.
    """

    async def story():
        async with nodes:
            world, (here, there) = nodes.world, nodes.services
            request = world.shown("machine", {"grant_type": "client_credentials"})
            await here.directory.poll()
            await there.directory.poll()
            assert await there.token.token(request)
            await world.change(CLIENTS, "machine", disabled=True)
            assert await there.directory.poll()
            with pytest.raises(OAuthError) as caught:
                await there.token.token(request)
            return caught.value

    assert "invalid_client" == asyncio.run(story()).error


def test_ACC5_the_story_of_a_sign_in_on_the_real_store(nodes):
    """
    Sign-in, refresh, lost answer, revocation: the same as in memory.
    """

    async def story():
        async with nodes:
            world = nodes.world
            first = await world.password()
            second = await world.refresh("legacy", first.refresh_token)
            nodes.clock.advance(timedelta(seconds=20))
            again = await world.refresh("legacy", first.refresh_token)
            await world.revoke("legacy", second.refresh_token)
            told = await world.introspect("watcher", again.access_token)
            return second, again, told

    second, again, told = asyncio.run(story())

    assert second.refresh_token == again.refresh_token
    assert {"active": False} == told
