"""
Which error of the wire a domain error becomes.
"""

from __future__ import annotations

import asyncio

import pytest

from kagimori.errors import ConfigError, OAuthError
from kagimori.keys.changing import no_ring
from kagimori.oauth.faults import translate


def test_REV5_a_ring_that_is_not_loaded_yet_is_no_fault_of_the_server():
    """
    REV-5: it passes by itself, so the client is told to come again; a twin stays 500.
    """
    answer = translate(no_ring("new"))

    assert (503, "temporarily_unavailable", 1) == (
        answer.status,
        answer.error,
        answer.retry_after,
    )
    assert 500 == translate(ConfigError("wrong")).status


def test_REV5_a_request_for_a_tenant_without_its_ring_is_503(world):
    """
    REV-5: the same through the token endpoint, whose tenant was made a moment ago.
    """

    async def story():
        await world.start()
        world.rings._holdings.tenants.clear()
        world.rings._strangers.unknown_id(world.now)
        with pytest.raises(OAuthError) as caught:
            await world.token()
        return caught.value

    assert 503 == asyncio.run(story()).status
