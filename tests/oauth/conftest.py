"""
What the tests of the OAuth rules stand on.
"""

from __future__ import annotations

import pytest

from tests.oauth.world import World


@pytest.fixture
def world():
    """
    Return a world that is not started yet: its story begins with ``await world.start()``.
    """
    world = World()
    yield world
    world.pool.close()
