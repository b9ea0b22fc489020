"""
What a server does between requests: one work's failure is no other's.
"""

from __future__ import annotations

import asyncio

import pytest

from kagimori.errors import StoreError
from kagimori.http.background import Background
from tests.http.world import world


def test_a_ledger_that_cannot_be_written_keeps_nothing_else_from_its_turn(
    tmp_path, monkeypatch
):
    """
    The marks are checked and readiness is told, and the failure is raised for the log.
    """

    async def scene():
        async with world(tmp_path) as w:
            background = Background(w.installation, w.live, w.places, w.metrics)
            await background._tick()
            before = w.metrics.ready
            checked = []
            real = w.installation.check_marks

            async def check():
                checked.append(True)
                await real()

            async def fails():
                raise StoreError("disk full")

            monkeypatch.setattr(w.installation, "check_marks", check)
            monkeypatch.setattr(w.installation.rings, "flush_ledger", fails)
            w.metrics.ready = False
            with pytest.raises(StoreError, match="disk full"):
                await background._tick()
            return before, checked, w.metrics.ready

    assert (True, [True], True) == asyncio.run(scene())
