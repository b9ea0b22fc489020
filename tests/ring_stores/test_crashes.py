"""
A crash, or a full disk, at any instant of a commit (attack K8).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from kagimori.errors import StoreError
from kagimori.keys.store import KeyStore
from kagimori.testing.conformance.key_store import ONE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named, revocation
from tests.ring_stores.dying import Calls, Died
from tests.ring_stores.places import document, folder, reading

NEWER = revocation("11111111-1111-4111-8111-111111111111", "newer")
OLD = of(ONE, TWO)
NEW = of(NEWER, named("three"))
MOST_CALLS = 200

Open = Callable[[Path], KeyStore]

stores = pytest.mark.parametrize("open_store", [folder, document])


def commit(store: KeyStore) -> None:
    """
    Add one element, replace one, remove one.
    """
    version = store.load().version
    store.commit([NEWER, named("three")], [TWO.name], version)


@stores
def test_K8_a_crash_at_any_call_leaves_old_or_new(open_store: Open, tmp_path: Path):
    """
    K8: wherever the writer dies, every reader finds the old ring or the new one; the next
    writer finishes or begins again, and .NET's files say the same.
    """
    outcomes = []
    for fatal in range(MOST_CALLS):
        place = tmp_path / str(fatal)
        open_store(place).commit([ONE, TWO], (), None)
        calls = Calls(fatal)
        with calls.patched(), contextlib.suppress(Died):
            commit(open_store(place))
        if not calls.struck:
            break
        first, again = open_store(place).load(), open_store(place).load()
        assert first == again
        assert meaning(first) in (OLD, NEW)
        outcomes.append(meaning(first) == NEW)
        change(open_store(place), (named("four"),), ())
        assert meaning(first) | of(named("four")) == meaning(open_store(place).load())
        # What lies there once nobody has anything to finish is what .NET sees.
        for sidecar in (place / "ring").glob("*state-*"):
            sidecar.unlink()
        assert meaning(first) | of(named("four")) == meaning(open_store(place).load())

    # Once the commit has happened it never un-happens, and both outcomes were met.
    assert sorted(outcomes) == outcomes
    assert {False, True} == set(outcomes)


@stores
def test_K8_a_crash_at_the_first_commit_leaves_nothing_or_all(
    open_store: Open, tmp_path: Path
):
    """
    K8: on an empty folder too: no ring, or a whole one.
    """
    outcomes = []
    for fatal in range(MOST_CALLS):
        place = tmp_path / str(fatal)
        place.mkdir()
        calls = Calls(fatal)
        with calls.patched(), contextlib.suppress(Died):
            open_store(place).commit([ONE, TWO], (), None)
        if not calls.struck:
            break
        found = meaning(open_store(place).load())
        assert found in ({}, OLD)
        outcomes.append(found == OLD)

    assert sorted(outcomes) == outcomes
    assert {False, True} == set(outcomes)


@stores
def test_K8_a_crash_of_who_finishes_a_commit_is_finished_too(
    open_store: Open, tmp_path: Path
):
    """
    K8: who puts a dead writer's commit in place may die as well, at any call.
    """

    def die(place: Path, fatal: int) -> Calls:
        open_store(place).commit([ONE, TWO], (), None)
        calls = Calls(fatal)
        with calls.patched(), contextlib.suppress(Died):
            commit(open_store(place))
        return calls

    def found(place: Path) -> dict[str, str]:
        # A second reader on the same folder that finishes nothing.
        return meaning(reading(open_store)(place).load())

    # The first call after which the commit holds, though nothing of it is in place yet.
    fatal = 0
    while die(tmp_path / f"first-{fatal}", fatal).struck:
        if found(tmp_path / f"first-{fatal}") == NEW:
            break
        fatal += 1
    for second in range(MOST_CALLS):
        place = tmp_path / f"second-{second}"
        die(place, fatal)
        calls = Calls(second)
        with calls.patched(), contextlib.suppress(Died):
            open_store(place).load()
        assert NEW == found(place) == meaning(open_store(place).load())
        if not calls.struck:
            break

    assert second > 2


@stores
def test_a_full_disk_is_a_clear_error_and_harms_nothing(
    open_store: Open, tmp_path: Path
):
    """
    K8: wherever the disk is full, the commit fails with what to do, or has happened; once
    there is room the ring is whole and the commit can be repeated.
    """
    said = set()
    for fatal in range(MOST_CALLS):
        place = tmp_path / str(fatal)
        open_store(place).commit([ONE, TWO], (), None)
        calls = Calls(fatal, full_disk=True)
        expected = NEW
        with calls.patched():
            try:
                commit(open_store(place))
            except StoreError as error:
                expected = OLD
                said.add((error.hint, error.transient))
            # Reading goes on, whatever there is room for.
            assert expected == meaning(open_store(place).load())
        if not calls.struck:
            break
        assert expected == meaning(open_store(place).load())
        if expected == OLD:
            commit(open_store(place))
        assert NEW == meaning(open_store(place).load())

    assert {("The disk is full: make room.", True)} == said
