"""
What a server's data has under which protection key, and how it is moved.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from kagimori.admin.reprotection import NODES_SEE, Moved, Reprotection
from kagimori.crypto.digests import b64url_encode
from kagimori.errors import KeyStateError, RefusedError
from kagimori.keys.documents import RINGS
from kagimori.keys.timeline import KeyState
from kagimori.storage.store import Put
from kagimori.tokens.family import open_family
from kagimori.tokens.policy import RefreshPolicy
from kagimori.tokens.records import FAMILIES
from kagimori.tokens.tag_keys import TagKeyring
from tests.keys.worlds import CAUSE, COOKIE, SIGNING, TENANT, World, run


class Meddling:
    """
    A store in which somebody else is faster, once.
    """

    def __init__(self, store, act):
        self._store = store
        self._act = act

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, tenant, changes):
        if self._act is not None and changes[0].kind == FAMILIES.kind:
            act, self._act = self._act, None
            await act()
        return await self._store.commit(tenant, changes)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def reprotection(world, store=None):
    """
    Return the verbs on a world; waiting moves its clock.
    """

    async def wait(span: timedelta) -> None:
        world.clock.advance(span)

    return Reprotection(
        store or world.store, world.ring, world.keys, world.trail, wait=wait
    )


async def sign_in(world) -> str:
    """
    Store a family of refresh tokens; return its id.
    """
    keys = TagKeyring(world.ring).make(TENANT)
    opened = open_family(
        id_=b64url_encode(b"f" * 16),
        tenant=TENANT,
        client="shop",
        user="mina",
        policy=RefreshPolicy(),
        longest_access=timedelta(minutes=10),
        secret=b"s" * 32,
        tag_key=keys.successors,
        sealed_tag_key=keys.sealed,
        now=world.now,
    )
    family = opened.family
    await world.store.commit(TENANT, [FAMILIES.put(family.id, family, 0)])
    return family.id


async def values(world) -> dict[str, tuple[int, int]]:
    """
    Return how many keys and sign-ins lie under each protection key.
    """
    left = await reprotection(world).left()
    return {each.key: (each.keys, each.sign_ins) for each in left}


async def spoil(world) -> None:
    """
    Make the private half of a signing key unreadable.
    """
    ring = await RINGS.get(world.store, TENANT, SIGNING.value)
    keys = tuple(
        msgspec.structs.replace(key, private=f"{(key.private or '')[:-8]}AAAAAAAA")
        for key in ring.value.keys
    )
    document = msgspec.structs.replace(ring.value, keys=keys)
    await world.store.commit(TENANT, [RINGS.put(SIGNING.value, document, ring.version)])


def test_values_are_counted_and_moved_to_the_current_key(world):
    """
    After a rotation everything lies under the old key; finish moves all of it, once.
    """

    async def story():
        await world.server()
        await sign_in(world)
        old = world.ring.current_key_id
        new = world.ring.rotate(immediate=True).id
        before = (await values(world))[old]

        moved = await reprotection(world).finish(CAUSE)
        again = await reprotection(world).finish(CAUSE)

        assert before[0] >= 2
        assert Moved(keys=before[0], sign_ins=1) == moved
        assert Moved() == again
        assert {old: (0, 0), new: before} == await values(world)

    run(story())


def test_a_protection_key_that_a_value_names_is_needed(world):
    """
    A key may go when nothing lies under it, and not before.
    """

    async def story():
        await world.server()
        old = world.ring.current_key_id
        world.ring.rotate(immediate=True)

        with pytest.raises(KeyStateError, match="lie under"):
            await reprotection(world).require_unneeded(old)
        await reprotection(world).finish(CAUSE)
        await reprotection(world).require_unneeded(old)

    run(story())


def test_while_a_tenants_ring_cannot_be_read_nobody_knows_what_it_needs(world):
    """
    Unreadable is not absent: a damaged document keeps every protection key.
    """

    async def story():
        await world.server()
        old = world.ring.current_key_id
        await world.store.commit("other", [Put(RINGS.kind, SIGNING.value, b"{", 0)])

        with pytest.raises(RefusedError, match="cannot be read"):
            await reprotection(world).require_unneeded(old)

    run(story())


def test_before_revoking_another_key_protects_and_what_lay_there_is_replaced(world):
    """
    All servers get the time to see the new key; signing and cookie keys are turned.
    """

    async def story():
        await world.server()
        await sign_in(world)
        stolen, began = world.ring.current_key_id, world.now

        moved = await reprotection(world).before_revoking([stolen], CAUSE)
        world.ring.revoke(stolen, "stolen")

        assert world.now >= began + NODES_SEE
        assert moved.turned == 2
        assert moved.sign_ins == 1
        fresh = await world.server()
        assert fresh.problem is None
        for use in (SIGNING, COOKIE):
            ring = await RINGS.get(world.store, TENANT, use.value)
            states = [
                ring.value.ring().state(key, world.now) for key in ring.value.keys
            ]
            assert KeyState.PREVIOUS in states or KeyState.RETIRED in states

    run(story())


def test_what_running_servers_move_meanwhile_is_replaced_all_the_same(world):
    """
    While the servers get to see the new key, they move the data: it lay there nonetheless.
    """

    async def story():
        await world.server()
        stolen = world.ring.current_key_id

        async def wait(span: timedelta) -> None:
            world.clock.advance(span)
            await reprotection(world).finish(CAUSE)

        verbs = Reprotection(
            world.store, world.ring, world.keys, world.trail, wait=wait
        )
        moved = await verbs.before_revoking([stolen], CAUSE)

        assert moved == Moved(turned=2)

    run(story())


def test_a_protection_key_that_was_stolen_later_had_the_keys_of_its_day(world):
    """
    Keys that were moved away long ago are replaced too, and those made since are not.
    """

    async def story():
        await world.server()
        old = world.ring.current_key_id
        world.clock.advance(timedelta(hours=1))
        world.ring.rotate(immediate=True)
        await reprotection(world).finish(CAUSE)
        world.clock.advance(timedelta(hours=1))
        rotating = {"now_flag": True, "emergency": True, "cause": CAUSE}
        await world.keys.rotate(TENANT, COOKIE, **rotating)

        moved = await reprotection(world).before_revoking([old], CAUSE)

        assert moved == Moved(turned=1)

    run(story())


def test_what_cannot_be_moved_stops_the_revocation(world):
    """
    A value that cannot be read would be lost with the key: nothing is revoked then.
    """

    async def story():
        await world.server()
        stolen = world.ring.current_key_id
        await spoil(world)

        with pytest.raises(RefusedError, match="nothing was revoked"):
            await reprotection(world).before_revoking([stolen], CAUSE)

        states = {view.id: view.state for view in tuple(world.ring.keys())}
        assert states[stolen] is KeyState.PREVIOUS

    run(story())


def test_values_of_revoked_keys_are_moved_only_where_that_is_said(world):
    """
    The dangerous read is explicit.
    """

    async def story():
        await world.server()
        await sign_in(world)
        lost = world.ring.current_key_id
        world.ring.revoke(lost, "elsewhere")
        before = (await values(world))[lost]

        careful = await reprotection(world).finish(CAUSE)
        trusting = await reprotection(world).finish(CAUSE, trusting=True)

        assert Moved(failed=sum(before)) == careful
        assert Moved(keys=before[0], sign_ins=1) == trusting

    run(story())


def test_a_sign_in_that_is_used_meanwhile_is_not_overwritten(world):
    """
    Whoever was faster keeps what it wrote, and the tag key moves all the same.
    """

    async def story():
        id_ = await sign_in(world)
        await world.server()
        world.ring.rotate(immediate=True)

        async def use() -> None:
            def rule(family, now):
                return msgspec.structs.replace(family, generation=2), None

            await FAMILIES.update(world.store, TENANT, id_, rule)

        store = Meddling(world.store, use)
        await reprotection(world, store).finish(CAUSE)

        found = await FAMILIES.get(world.store, TENANT, id_)
        assert found.value.generation == 2
        assert found.value.tag_key.protection_key == world.ring.current_key_id

    run(story())
