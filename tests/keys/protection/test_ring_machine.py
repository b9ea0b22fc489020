"""
Rings under random verbs: what holds after every step.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kagimori.errors import KeyRingError, ProtectionError
from kagimori.ring_stores.document import DocumentStore
from tests.keys.protection.vault import Vault
from tests.keys.protection.world import World

places = st.integers(0, 100)


class RingMachine(RuleBasedStateMachine):
    """
    One node that operates, one that follows, and what was protected on the way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.world = World(self.place)
        self.store = DocumentStore(self.place / "ring.xml")
        self.vault, self.safe = Vault(), Vault("safe", "Test.Safe")
        self.ring = self._opened()
        self.node = self._opened()
        self.made: dict[str, str] = {}
        self.dead: set[str] = set()

    def _opened(self):
        return self.world.ring(store=self.store, wrapper=self.vault)

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def _one(self, at: int) -> str:
        keys = self.ring.keys()
        return keys[at % len(keys)].id

    def _try(self, verb) -> None:
        """
        Do what a verb does; a refusal has to leave everything as it was.
        """
        before = self.store.load()
        try:
            ended = verb()
        except KeyRingError:
            assert before == self.store.load()
            return
        self.dead |= {cut.key_id for cut in getattr(ended, "cuts", ())}

    @rule(hours=st.sampled_from([1, 5, 30, 80, 24 * 40]))
    def time_passes(self, hours: int) -> None:
        self.world.clock.advance(timedelta(hours=hours))
        self.ring.refresh()

    @rule()
    def protect(self) -> None:
        sealed = self.ring.protector("a").protect(b"x")
        self.made[sealed] = self.ring.current_key_id

    @rule(immediate=st.booleans(), replace=st.booleans())
    def rotate(self, *, immediate: bool, replace: bool) -> None:
        self._try(lambda: self.ring.rotate(immediate=immediate, replace=replace))

    @rule(at=places, emergency=st.booleans())
    def activate(self, at: int, *, emergency: bool) -> None:
        self._try(lambda: self.ring.activate(self._one(at), emergency=emergency))

    @rule()
    def cancel(self) -> None:
        self._try(self.ring.cancel)

    @rule(at=places)
    def revoke(self, at: int) -> None:
        self._try(lambda: self.ring.revoke(self._one(at)))

    @rule(days=st.integers(0, 60))
    def revoke_before(self, days: int) -> None:
        date = self.world.clock.now() - timedelta(days=days)
        self._try(lambda: self.ring.revoke_before(date))

    @rule(at=places, force=st.booleans())
    def delete(self, at: int, *, force: bool) -> None:
        self._try(lambda: self.ring.delete(self._one(at), force=force))

    @precondition(lambda self: self.vault.wraps < 200)
    @rule()
    def rewrap(self) -> None:
        self.vault.turn()
        self.ring.rewrap()
        oldest = next(iter(self.vault.versions))
        if oldest != self.vault.newest():
            del self.vault.versions[oldest]

    @rule()
    def double(self) -> None:
        self.ring.add_recovery(self.safe)

    @invariant()
    def one_key_protects_and_all_agree(self) -> None:
        self.node.refresh()
        fresh = self._opened()
        current = {one.current_key_id for one in (self.ring, self.node, fresh)}
        assert 1 == len(current)
        assert not current & self.dead

    @invariant()
    def what_is_not_dead_opens_and_nothing_else(self) -> None:
        for node in (self.ring, self.node):
            for sealed, key_id in self.made.items():
                try:
                    opened = node.protector("a").unprotect(sealed).payload
                except ProtectionError:
                    assert key_id in self.dead
                else:
                    assert key_id not in self.dead
                    assert b"x" == opened

    @invariant()
    def elements_belong_together(self) -> None:
        names = {element.name for element in self.store.load().elements}
        ids = {key.id for key in tuple(self.ring.keys())}
        for name in names:
            kind, _, rest = name.partition("-")
            if kind in {"key", "recovery"}:
                assert rest in ids


RingMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=15, deadline=None
)
TestRings = RingMachine.TestCase
