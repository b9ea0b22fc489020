"""
Tag keys whose protection key the ring has to look for: never on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from datetime import timedelta

import pytest

from kagimori.errors import RingUnreadableError
from kagimori.keys.protection import live
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.tokens.redemption import Redemption
from kagimori.tokens.refresh_token import RefreshToken, TagKey
from tests.keys.protection.world import World
from tests.tokens.world import CLIENT, TENANT, Desk


class Scene:
    """
    Two instances on one ring; a family was opened at the one, which has turned the ring.
    """

    def __init__(self, place):
        self.clock = FixedClock()
        self.world = World(place, self.clock)
        self.ring = self.world.ring()
        other = World(place, self.clock)
        other.wrapper = self.world.wrapper
        self.other = other.ring()
        store = MemoryStore(self.clock)
        self.desk, self.there = Desk(store, self.ring), Desk(store, self.other)

    async def sign_in(self):
        self.other.rotate(immediate=True)
        await self.there.add_user()
        return (await self.there.open(self.clock)).token.text


async def longest_stall(work):
    """
    Return what `work` gives, and the longest time in which the event loop stood still.
    """
    beats = [time.monotonic()]

    async def beat():
        while True:
            await asyncio.sleep(0.01)
            beats.append(time.monotonic())

    beating = asyncio.create_task(beat())
    try:
        result = await work
        await asyncio.sleep(0.03)
    finally:
        beating.cancel()
    return result, max(b - a for a, b in itertools.pairwise(beats))


def test_a_key_of_another_instance_is_looked_for_in_a_thread(tmp_path):
    """
    The ring is read in no event loop, and the family keeps its tag key.
    """
    scene = Scene(tmp_path)
    threads = []
    real = scene.world.store.real.load

    def load():
        threads.append(threading.current_thread() is threading.main_thread())
        return real()

    async def live_():
        text = await scene.sign_in()
        scene.world.store.real.load = load
        return await scene.desk.redeem(text)

    verdict = asyncio.run(live_())

    assert (Redemption.ROTATED, False) == (verdict.outcome, verdict.lost_tag_key)
    assert [False] == threads


def test_B3_no_tag_key_is_given_up_while_the_ring_is_being_looked_at(
    tmp_path, monkeypatch
):
    """
    While a look hangs a refresh is put off and the loop runs; then its tag key is there.
    """
    monkeypatch.setattr(live, "_WAIT_FOR_FLIGHT", 0.4)
    scene = Scene(tmp_path)

    async def put_off(work):
        with pytest.raises(RingUnreadableError):
            await work

    async def live_():
        text = await scene.sign_in()
        family = RefreshToken.parse(text).family_id
        old = RefreshToken.make(family, 1, b"s" * 32, TagKey(b"k" * 32)).text
        scene.ring._live._flight.take()
        revoke = scene.desk.families.revocation.revoke_token
        stalls = [
            (await longest_stall(put_off(work())))[1]
            for work in (
                lambda: scene.desk.redeem(text),
                lambda: revoke(TENANT, old, client=CLIENT),
                lambda: scene.desk.families.inspect_token(TENANT, old),
            )
        ]
        scene.ring._live._flight.land()
        return stalls, await scene.desk.redeem(text)

    stalls, verdict = asyncio.run(live_())

    assert max(stalls) < 0.3
    assert (Redemption.ROTATED, False) == (verdict.outcome, verdict.lost_tag_key)


def test_B3_a_key_that_the_ring_does_not_hold_logs_nobody_out(tmp_path):
    """
    The ring was read and has no such key: the current token is honoured under a new one.
    """
    scene = Scene(tmp_path / "here")
    stranger = Scene(tmp_path / "elsewhere")

    async def live_():
        scene.desk.store = scene.there.store
        there = Desk(scene.desk.store, stranger.ring)
        await there.add_user()
        text = (await there.open(scene.clock)).token.text
        first = await scene.desk.redeem(text)
        return first, await scene.desk.redeem(first.token.text)

    first, second = asyncio.run(live_())

    assert (Redemption.ROTATED, True) == (first.outcome, first.lost_tag_key)
    assert (Redemption.ROTATED, False) == (second.outcome, second.lost_tag_key)


def test_a_key_not_yet_unwrapped_is_unwrapped_in_a_thread(tmp_path):
    """
    A key older than the last one costs the vault, or a derivation, its time elsewhere.
    """
    scene = Scene(tmp_path)
    threads = []
    real = scene.world.wrapper.real.unwrap

    def unwrap(wrapped, context):
        threads.append(threading.current_thread() is threading.main_thread())
        return real(wrapped, context)

    async def live_():
        text = await scene.sign_in()
        # Of two keys that activate at one instant either may be current. The last one before
        # it is opened ahead.
        for _ in range(2):
            scene.clock.advance(timedelta(seconds=1))
            scene.other.rotate(immediate=True)
        fresh = Desk(scene.there.store, scene.world.ring())
        wrapper = scene.world.wrapper
        wrapper.real = type("Spied", (), {"unwrap": staticmethod(unwrap)})()
        return await fresh.redeem(text)

    verdict = asyncio.run(live_())

    assert (Redemption.ROTATED, False) == (verdict.outcome, verdict.lost_tag_key)
    assert [False] == threads
