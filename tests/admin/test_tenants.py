"""
The operator's verbs for tenants.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.admin.audit import read_trail, verify_trail
from kagimori.admin.hosts import ABANDONED_AFTER, HOSTS, HostClaim
from kagimori.admin.tenants import EMPTIED_KINDS
from kagimori.errors import (
    ConfigError,
    KagimoriError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from kagimori.keys.birth import NewRings
from kagimori.keys.policy import RotationPolicy
from kagimori.oauth.tenant import TENANTS
from kagimori.storage.store import ABSENT, Put
from kagimori.testing.spy_store import SpyStore
from tests.keys.worlds import CAUSE, SIGNING, World, kid_of, run


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def kinds(world, tenant):
    """
    Return the kinds of which the tenant has documents.
    """
    names = ("tenant", "ring", "ledger", "audit", "audit_head", *EMPTIED_KINDS)
    return {name for name in names if await world.store.count(tenant, name)}


def test_a_tenant_comes_with_its_keys(world):
    """
    It signs at once, and its keys are its own.
    """

    async def story():
        made = await world.tenants.create("acme", name="Acme", cause=CAUSE)
        assert ("acme", "Acme", None, False) == (
            made.id,
            made.name,
            made.host,
            made.disabled,
        )
        assert {"tenant", "ring", "ledger", "audit", "audit_head"} == await kinds(
            world, "acme"
        )
        rings = await world.server()
        token = await world.sign(rings, tenant="acme")
        assert world.verify(rings, token, "acme")
        assert not rings.knows("default", kid_of(token), world.now)
        assert [made] == list(await world.tenants.list())
        records = await read_trail(world.store, "acme")
        assert "tenant.created" == records[0].action
        assert ["key.created", "key.created"] == [r.action for r in records[1:]]

    run(story())


def test_K8_tenant_and_keys_are_one_commit_or_nothing(world):
    """
    K8: when the commit fails nothing is there, and trying again is safe.
    """

    async def story():
        spy = SpyStore(world.store)
        works = spy.commit
        commits = []

        async def broken(tenant, changes):
            commits.append(changes)
            raise StoreError("disk full")

        spy.commit = broken
        admin = type(world.tenants)(spy, world.ring, world.clock, plan=world.plan)
        with pytest.raises(StoreError):
            await admin.create("acme", cause=CAUSE)
        assert 1 == len(commits)
        assert set() == await kinds(world, "acme")
        spy.commit = works
        assert await admin.create("acme", cause=CAUSE)

    run(story())


def test_K4_of_many_who_make_one_tenant_one_wins(world):
    """
    K4: the others are told that it is taken.
    """

    async def story():
        made = await asyncio.gather(
            *(world.tenants.create("acme", cause=CAUSE) for _ in range(10)),
            return_exceptions=True,
        )
        assert 1 == sum(not isinstance(each, Exception) for each in made)
        assert all(
            isinstance(e, RefusedError) for e in made if isinstance(e, Exception)
        )
        assert 1 == len(await world.kids("current", tenant="acme"))
        assert await verify_trail(world.store, "acme")

    run(story())


@pytest.mark.parametrize(
    "name", ["", "A", "a/b", "..", "a b", "-a", "a-", "é", "a" * 64, "a\n", "a.b"]
)
def test_K11_a_name_that_could_be_a_path_is_refused(world, name):
    """
    K11: names stand in paths; the twin of each is accepted.
    """

    async def story():
        with pytest.raises(ConfigError):
            await world.tenants.create(name, cause=CAUSE)
        assert await world.tenants.create("a-1", cause=CAUSE)
        assert await world.tenants.create("a" * 63, cause=CAUSE)

    run(story())


@pytest.mark.parametrize(
    "host", ["", "Acme.example", "a/b", "a b", "http://a", "a:port", "a..b", "a\n"]
)
def test_a_host_that_is_none_is_refused(world, host):
    """
    One with a port is fine, and each host belongs to one tenant.
    """

    async def story():
        with pytest.raises(ConfigError):
            await world.tenants.create("acme", host=host, cause=CAUSE)
        made = await world.tenants.create("acme", host="a.example:8443", cause=CAUSE)
        assert "a.example:8443" == made.host
        with pytest.raises(RefusedError):
            await world.tenants.create("other", host="a.example:8443", cause=CAUSE)

    run(story())


def test_an_impossible_plan_makes_nothing(world):
    """
    Neither an impossible policy nor an unknown algorithm.
    """

    async def story():
        for plan in (
            NewRings(signing=RotationPolicy(propagation=RotationPolicy().max_age)),
            NewRings(algorithms=("HS256",)),
        ):
            with pytest.raises(KagimoriError):
                await world.tenants.create("acme", plan=plan, cause=CAUSE)
        assert set() == await kinds(world, "acme")

    run(story())


def test_a_tenant_is_disabled_and_enabled_again(world):
    """
    Twice is no change; its keys go on turning; each change is on record.
    """

    async def story():
        await world.tenants.create("acme", cause=CAUSE)
        for _ in range(2):
            assert (await world.tenants.disable("acme", cause=CAUSE)).disabled
        assert not (await world.tenants.enable("acme", cause=CAUSE)).disabled
        actions = [record.action for record in await read_trail(world.store, "acme")]
        assert ["tenant.disabled", "tenant.enabled"] == actions[-2:]
        for verb in (world.tenants.disable, world.tenants.enable):
            with pytest.raises(NotFoundError):
                await verb("nobody", cause=CAUSE)

    run(story())


def test_deleting_takes_everything_but_the_trail(world):
    """
    A tenant of the same name made later begins anew: nothing of the old one comes back.
    """

    async def story():
        await world.tenants.create("acme", cause=CAUSE)
        for number in range(450):
            kind = EMPTIED_KINDS[number % len(EMPTIED_KINDS)]
            await world.store.commit("acme", [Put(kind, f"{number}", b"{}", ABSENT)])
        (old,) = await world.kids("current", tenant="acme")
        await world.tenants.delete("acme", cause=CAUSE)
        assert {"audit", "audit_head"} == await kinds(world, "acme")
        assert () == await world.tenants.list()
        await world.tenants.create("acme", cause=CAUSE)
        assert [old] != await world.kids("current", tenant="acme")
        actions = [record.action for record in await read_trail(world.store, "acme")]
        assert "tenant.deleted" in actions
        assert await verify_trail(world.store, "acme")

    run(story())


def test_deleting_while_tokens_live_needs_force(world):
    """
    K12: the refusal states their number and the safe moment.
    """

    async def story():
        await world.tenants.create("acme", cause=CAUSE)
        rings = await world.server()
        await world.sign(rings, tenant="acme", life=600)
        await rings.flush_ledger()
        with pytest.raises(RefusedError) as refused:
            await world.tenants.delete("acme", cause=CAUSE)
        assert ("1", "2030-01-01T00:11:00Z") == (
            refused.value.params["live"],
            refused.value.params["safe"],
        )
        found = await TENANTS.get(world.store, "acme", "acme")
        assert not found.value.disabled
        await world.tenants.delete("acme", force=True, cause=CAUSE)
        assert () == await world.tenants.list()

    run(story())


def test_the_default_tenant_is_never_deleted(world):
    """
    Not by force either; nor one that is not there.
    """

    async def story():
        await world.tenants.create("default", cause=CAUSE)
        with pytest.raises(RefusedError):
            await world.tenants.delete("default", force=True, cause=CAUSE)
        with pytest.raises(NotFoundError):
            await world.tenants.delete("nobody", force=True, cause=CAUSE)
        assert 1 == len(await world.tenants.list())
        assert 1 == len(await world.kids("current", SIGNING.value))

    run(story())


def test_many_tenants_are_listed_in_order(world, monkeypatch):
    """
    Page by page.
    """
    monkeypatch.setattr("kagimori.admin.tenants.PAGE", 2)

    async def story():
        for name in ("c", "a", "e", "b", "d"):
            await world.tenants.create(name, cause=CAUSE)
        assert list("abcde") == [tenant.id for tenant in await world.tenants.list()]

    run(story())


def test_K12_tokens_signed_while_a_tenant_is_being_disabled_count(world):
    """
    K12: it is looked at again once it is disabled, and enabled where a token lives.
    """

    async def story():
        await world.tenants.create("acme", cause=CAUSE)
        rings = await world.server()
        works = world.store.commit
        tokens = []

        async def slow(tenant, changes):
            if not tokens and any(each.kind == TENANTS.kind for each in changes):
                tokens.append("")
                tokens[0] = await world.sign(rings, tenant="acme")
            return await works(tenant, changes)

        world.store.commit = slow
        with pytest.raises(RefusedError, match="may be alive"):
            await world.tenants.delete("acme", cause=CAUSE)
        await rings.refresh()
        assert world.verify(rings, tokens[0], "acme")
        assert not (await world.tenants.list())[0].disabled

    run(story())


def test_K12_a_token_signed_just_before_the_end_stops_it(world):
    """
    K12: a server that had not heard of the end signed. The keys stay; later it is safe.
    """

    async def story():
        await world.tenants.create("acme", cause=CAUSE)
        rings = await world.server()
        works = world.store.commit
        tokens = []

        async def slow(tenant, changes):
            ends = any(type(each).__name__ == "Delete" for each in changes)
            if ends and not tokens:
                tokens.append("")
                tokens[0] = await world.sign(rings, tenant="acme")
            return await works(tenant, changes)

        world.store.commit = slow
        with pytest.raises(RefusedError):
            await world.tenants.delete("acme", cause=CAUSE)
        await rings.refresh()
        assert world.verify(rings, tokens[0], "acme")
        assert (await world.tenants.list())[0].disabled
        world.clock.advance(timedelta(minutes=11))
        await world.tenants.delete("acme", cause=CAUSE)
        assert () == await world.tenants.list()

    run(story())


@pytest.mark.parametrize("sqlite", [False, True])
def test_two_creations_at_once_never_share_a_host(tmp_path, sqlite):
    """
    One wins; the other makes nothing, and has the host once the first is deleted.
    """
    world = World(tmp_path, sqlite=sqlite)

    async def story():
        made = await asyncio.gather(
            *(
                world.tenants.create(name, host="auth.example", cause=CAUSE)
                for name in ("x", "y")
            ),
            return_exceptions=True,
        )
        assert 1 == sum(isinstance(each, RefusedError) for each in made)
        (winner,) = await world.tenants.list()
        (loser,) = {"x", "y"} - {winner.id}
        assert set() == await kinds(world, loser)
        with pytest.raises(RefusedError):
            await world.tenants.create(loser, host="auth.example", cause=CAUSE)
        await world.tenants.delete(winner.id, cause=CAUSE)
        assert await world.tenants.create(loser, host="auth.example", cause=CAUSE)
        await world.store.close()

    run(story())


def test_a_host_is_let_go_where_its_tenant_was_not_made(world):
    """
    After a refused commit at once; after one that died, when it is too old to be on its way.
    """

    async def story():
        works = world.store.commit

        async def broken(tenant, changes):
            if tenant == "x":
                raise StoreError("disk full")
            return await works(tenant, changes)

        world.store.commit = broken
        with pytest.raises(StoreError):
            await world.tenants.create("x", host="a.example", cause=CAUSE)
        assert await HOSTS.get(world.store, "default", "a.example") is None
        claim = HostClaim(tenant="x", since=world.now, by="dead")
        await works("default", [HOSTS.put("a.example", claim, ABSENT)])
        with pytest.raises(RefusedError):
            await world.tenants.create("y", host="a.example", cause=CAUSE)
        world.clock.advance(ABANDONED_AFTER)
        assert await world.tenants.create("y", host="a.example", cause=CAUSE)

    run(story())
