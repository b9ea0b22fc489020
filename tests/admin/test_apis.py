"""
The operator's verbs for APIs.
"""

from __future__ import annotations

import asyncio

import pytest

from kagimori.admin.apis import IDENTIFIERS, ApiAdmin, NewApi
from kagimori.admin.tenants import EMPTIED_KINDS
from kagimori.errors import NotFoundError, RefusedError
from tests.keys.worlds import CAUSE, TENANT, World, run

IDENTIFIER = "urn:example:" + "a" * 200


@pytest.mark.parametrize("sqlite", [False, True])
def test_two_creations_at_once_never_share_an_identifier(tmp_path, sqlite):
    """
    One wins; the other is refused until the first is deleted.
    """
    world = World(tmp_path, sqlite=sqlite)
    apis = ApiAdmin(world.store, world.trail, world.keys, lambda: world.now)

    async def story():
        asked = [NewApi(id=name, identifier=IDENTIFIER) for name in ("x", "y")]
        made = await asyncio.gather(
            *(apis.create(TENANT, each, cause=CAUSE) for each in asked),
            return_exceptions=True,
        )
        assert 1 == sum(isinstance(each, RefusedError) for each in made)
        (winner,) = await apis.list(TENANT)
        (loser,) = [each for each in asked if each.id != winner.id]
        with pytest.raises(RefusedError, match=winner.id):
            await apis.create(TENANT, loser, cause=CAUSE)
        await apis.delete(TENANT, winner.id, cause=CAUSE)
        with pytest.raises(NotFoundError):
            await apis.delete(TENANT, winner.id, cause=CAUSE)
        assert 0 == await world.store.count(TENANT, IDENTIFIERS.kind)
        assert await apis.create(TENANT, loser, cause=CAUSE)
        await world.store.close()

    run(story())


def test_identifiers_go_with_their_tenant():
    """
    A tenant of the same name made later may use each again.
    """
    assert IDENTIFIERS.kind in EMPTIED_KINDS
