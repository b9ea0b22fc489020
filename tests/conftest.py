"""
What every test stands on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers.fixtures"]

# `make test` is bounded: the same figures on every machine, and no deadline, because two
# workers share two cores. `make soak` sets KAGIMORI_HYPOTHESIS=soak.
settings.register_profile(
    "test",
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "soak", settings.get_profile("test"), max_examples=10_000, derandomize=False
)
settings.load_profile(os.environ.get("KAGIMORI_HYPOTHESIS", "test"))

ROOT = Path(__file__).parent.parent


def find_dp_peer() -> Path | None:
    """
    Return the real ASP.NET Core Data Protection to test against, where there is one.
    """
    named = os.environ.get("KAGIMORI_DP_PEER")
    peer = Path(named) if named else ROOT.parent / "shared/peers/aspnet/dp-peer"
    return peer if peer.is_file() else None


@pytest.fixture(scope="session")
def dp_peer() -> Path:
    """
    Return the path of `dp-peer`. Tests that ask for it are marked ``dp_peer``.
    """
    peer = find_dp_peer()
    assert peer is not None, "mark the test with pytest.mark.dp_peer"
    return peer


def pytest_collection_modifyitems(config, items):
    """
    Leave out what needs `dp-peer` where it is not: it alone cannot be installed.
    """
    if find_dp_peer():
        return
    live = [item for item in items if item.get_closest_marker("dp_peer")]
    config.hook.pytest_deselected(items=live)
    items[:] = [item for item in items if item not in live]


def pytest_terminal_summary(terminalreporter):
    """
    Say in one line what was left out.
    """
    if not find_dp_peer():
        terminalreporter.write_line(
            "dp-peer was not found (KAGIMORI_DP_PEER): its live tests were left out."
        )
