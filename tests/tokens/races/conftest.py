from __future__ import annotations

import pytest

from tests.tokens.races.arena import Arena


@pytest.fixture(params=["memory", "sqlite"])
def arena(request, tmp_path):
    """
    Return what makes arenas: with real threads on the store in memory, and on SQLite.
    """
    made = []

    def make(**fields):
        found = Arena(request.param, tmp_path, **fields)
        found.__enter__()
        made.append(found)
        return found

    yield make
    for each in made:
        each.__exit__()
