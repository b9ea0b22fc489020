"""
A shop's ring, and its pages in each framework.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integrations.browser import Browser, Send
from tests.integrations.sites import SITES
from tests.keys.protection.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(params=list(SITES))
def site(request: pytest.FixtureRequest) -> Callable[..., Send]:
    """
    Return what makes a shop of a ring, in each framework in turn.
    """
    return SITES[request.param]


@pytest.fixture
def browser() -> Browser:
    return Browser()
