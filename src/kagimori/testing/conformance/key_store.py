"""
What every `kagimori.keys.store.KeyStore` must do.

Derive from `KeyStoreConformance` in a test file.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kagimori.errors import ConflictError, RingReadOnlyError
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Element, KeyStore, Snapshot
from kagimori.testing.conformance.key_store_worker import (
    ROUNDS,
    change,
    named,
    revocation,
)

ONE = revocation("11111111-1111-4111-8111-111111111111", "one")
TWO = revocation("22222222-2222-4222-8222-222222222222", "two")
STATE = Element(
    elements.STATE,
    '<state xmlns="urn:kagimori:ring:1" generation="7"><application>shop</application></state>',
)
_TIMEOUT = 120


def meaning(snapshot: Snapshot) -> dict[str, str]:
    """
    Return a ring's elements by name, layout left aside; our state element apart.
    """
    found = {}
    for element in snapshot.elements:
        if element.name != elements.STATE:
            root = xml.parse(element.xml)
            for node in root.iter():
                node.tail = None
                node.text = node.text if node.text and node.text.strip() else None
            assert element.name not in found
            found[element.name] = xml.write(root)
    return found


def of(*given: Element) -> dict[str, str]:
    """
    Return elements as `meaning` does.
    """
    return meaning(Snapshot(given, None))


class KeyStoreConformance:
    """
    The suite. Fill in `make_store` and `opener`.
    """

    opener = ""
    """``module:function``; the function opens, in another process, what `make_store` opens."""

    processes = 20
    kills = 20

    def make_store(self, place: Path, *, read_only: bool = False) -> KeyStore:
        """
        Open the store that lies in the folder `place`, which is there; it may be empty.
        """
        raise NotImplementedError

    # --- elements --------------------------------------------------------------------------

    def test_an_empty_store_holds_nothing(self, tmp_path: Path) -> None:
        """
        Where nothing was ever stored there are no elements, and the version is None.
        """
        assert Snapshot((), None) == self.make_store(tmp_path).load()

    def test_what_was_committed_is_loaded(self, tmp_path: Path) -> None:
        """
        Elements come back by name with their meaning, here and where the store is opened anew.
        """
        store = self.make_store(tmp_path)
        after = store.commit([ONE, TWO], (), None)

        assert of(ONE, TWO) == meaning(after) == meaning(store.load())
        assert of(ONE, TWO) == meaning(self.make_store(tmp_path).load())
        assert after.version == self.make_store(tmp_path).load().version

    def test_our_state_comes_back(self, tmp_path: Path) -> None:
        """
        The state element is kept beside the others, and stays when a commit gives none.
        """
        store = self.make_store(tmp_path)
        after = store.commit([ONE, STATE], (), None)
        later = store.commit([TWO], (), after.version)

        for snapshot in (after, later, self.make_store(tmp_path).load()):
            state = next(e for e in snapshot.elements if e.name == elements.STATE)
            assert 7 == elements.read_state(xml.parse(state.xml)).generation
            assert "shop" == elements.read_state(xml.parse(state.xml)).application

    @pytest.mark.parametrize(
        "reason",
        [
            "<&>\"'",
            "]]>",
            "鍵守 🗝",
            " \t two  blanks ",
            "a\r\nb",
            "x" * 100_000,
            "&#65;",
        ],
    )
    def test_text_comes_back_as_it_was(self, tmp_path: Path, reason: str) -> None:
        """
        Whatever stands in an element's text survives, to the character.
        """
        element = revocation("33333333-3333-4333-8333-333333333333", reason)
        self.make_store(tmp_path).commit([element], (), None)

        (loaded,) = self.make_store(tmp_path).load().elements[:1]
        assert reason == (xml.parse(loaded.xml).findtext("reason") or "")

    def test_an_element_of_a_stored_name_replaces_it(self, tmp_path: Path) -> None:
        """
        Adding under a name that is stored replaces that element and no other.
        """
        store = self.make_store(tmp_path)
        after = store.commit([ONE, TWO], (), None)
        newer = revocation("11111111-1111-4111-8111-111111111111", "newer")
        assert newer.name == ONE.name
        store.commit([newer], (), after.version)

        assert of(newer, TWO) == meaning(self.make_store(tmp_path).load())

    def test_elements_are_removed_by_name(self, tmp_path: Path) -> None:
        """
        Removed elements are gone; a name that is not stored is no error.
        """
        store = self.make_store(tmp_path)
        after = store.commit([ONE, TWO], (), None)
        after = store.commit((), [ONE.name, "key-that-is-not"], after.version)
        assert of(TWO) == meaning(after)

        store.commit([ONE], [TWO.name], after.version)
        assert of(ONE) == meaning(self.make_store(tmp_path).load())

    # --- compare and swap ------------------------------------------------------------------

    def test_a_stale_commit_changes_nothing(self, tmp_path: Path) -> None:
        """
        A commit on an earlier version, or on none, conflicts; on the present one it holds.
        """
        store = self.make_store(tmp_path)
        first = store.commit([ONE], (), None)
        other = self.make_store(tmp_path)
        second = other.commit([TWO], (), first.version)

        three = named("three")
        for expect in (None, first.version, "0.made-up"):
            with pytest.raises(ConflictError):
                store.commit([three], [ONE.name], expect)
        assert of(ONE, TWO) == meaning(store.load())
        store.commit([three], [ONE.name], second.version)
        assert of(three, TWO) == meaning(other.load())

    def test_a_version_never_comes_back(self, tmp_path: Path) -> None:
        """
        After adding and removing the same element the version is another one.
        """
        store = self.make_store(tmp_path)
        versions = {store.commit([ONE], (), None).version}
        for add, remove in (([TWO], []), ([], [TWO.name])) * 3:
            version = store.load().version
            versions.add(store.commit(add, remove, version).version)

        assert 7 == len(versions)

    def test_the_probe_tells_of_every_change(self, tmp_path: Path) -> None:
        """
        The probe's token holds still while nothing changes, and moves with each commit.
        """
        store, other = self.make_store(tmp_path), self.make_store(tmp_path)
        tokens = [other.probe()]
        for number in range(5):
            change(store, (named(f"probe-{number}"),), ())
            store.load()
            tokens.append(other.probe())
            assert tokens[-1] == other.probe()

        assert 6 == len(set(tokens))

    def test_a_read_only_store_reads_and_never_writes(self, tmp_path: Path) -> None:
        """
        Opened read-only it loads what others commit, and refuses to commit.
        """
        reader = self.make_store(tmp_path, read_only=True)
        assert Snapshot((), None) == reader.load()
        with pytest.raises(RingReadOnlyError):
            reader.commit([ONE], (), None)
        assert Snapshot((), None) == self.make_store(tmp_path).load()

        self.make_store(tmp_path).commit([ONE], (), None)
        assert of(ONE) == meaning(reader.load())

    # --- races and death -------------------------------------------------------------------

    def test_threads_lose_nothing(self, tmp_path: Path) -> None:
        """
        Eight threads that commit side by side all find their elements in the ring.
        """
        store = self.make_store(tmp_path)
        mine = [[named(f"{thread}-{n}") for n in range(4)] for thread in range(8)]

        def work(own: Sequence[Element]) -> None:
            for element in own:
                change(store, (element,), ())

        threads = [threading.Thread(target=work, args=(own,)) for own in mine]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_TIMEOUT)

        everything = [element for own in mine for element in own]
        assert of(*everything) == meaning(self.make_store(tmp_path).load())

    def test_k4_one_of_many_processes_creates(self, tmp_path: Path) -> None:
        """
        K4: of 20 processes that commit on an empty store at once, exactly one succeeds.
        """
        with self._workers("create", tmp_path, self.processes) as workers:
            said = [worker.communicate("\n", _TIMEOUT)[0] for worker in workers]

        assert ["lost\n"] * (self.processes - 1) + ["won\n"] == sorted(said)
        found = meaning(self.make_store(tmp_path).load())
        assert of(named(str(said.index("won\n")))) == found

    def test_processes_lose_nothing(self, tmp_path: Path) -> None:
        """
        Six processes that commit side by side all find their elements in the ring.
        """
        with self._workers("append", tmp_path, 6) as workers:
            said = [worker.communicate("\n", _TIMEOUT)[0] for worker in workers]

        names = {name for text in said for name in text.split()}
        assert 6 * ROUNDS == len(names)
        assert names == set(meaning(self.make_store(tmp_path).load()))

    def test_k8_a_killed_writer_leaves_old_or_new(self, tmp_path: Path) -> None:
        """
        K8: after each kill -9 in the middle of commits the ring is old or new, and whole.

        It holds exactly the last acknowledged element or the one after it, and takes the next
        commit.
        """
        for kill in range(self.kills):
            with self._workers("churn", tmp_path, 1) as (worker,):
                worker.stdin.write("\n")  # type: ignore[union-attr] # it is a pipe
                worker.stdin.flush()  # type: ignore[union-attr] # it is a pipe
                said = [worker.stdout.readline() for _ in range(1 + kill % 4)]  # type: ignore[union-attr] # a pipe
                worker.kill()
                said += worker.communicate(timeout=_TIMEOUT)[0].splitlines()
            acknowledged = said[-1].strip()
            store = self.make_store(tmp_path)
            reader = self.make_store(tmp_path, read_only=True)
            (name,) = meaning(reader.load())
            assert {name} == set(meaning(store.load()))
            assert acknowledged
            # A later one may have been committed and not said; never an earlier one.
            assert name == acknowledged or name not in {line.strip() for line in said}
            change(store, (), (name,))
            assert {} == meaning(store.load())

    @contextlib.contextmanager
    def _workers(
        self, verb: str, place: Path, count: int
    ) -> Iterator[list[subprocess.Popen[str]]]:
        module = "kagimori.testing.conformance.key_store_worker"
        command = [sys.executable, "-m", module, verb, self.opener, str(place)]
        workers = [
            subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]
        try:
            for worker in workers:
                # All of them are up before the first is let go.
                assert worker.stdout is not None
                assert "ready\n" == worker.stdout.readline()
            yield workers
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.kill()
                    worker.communicate(timeout=_TIMEOUT)
                for pipe in (worker.stdin, worker.stdout):
                    if pipe is not None and not pipe.closed:
                        pipe.close()
