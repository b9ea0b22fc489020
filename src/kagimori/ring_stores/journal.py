"""
The commit of a ring in files: the exclusive creation of the next state file.

Rules of this module:

1. State files are numbered. The one with the highest number is the ring's state; it carries the
   change that made it, exactly as it will lie. Giving it its name *is* the commit: a link
   that refuses to replace has one winner, without a lock, on network shares too.
2. What the change says is put in place afterwards, by the winner or by whoever finds it
   missing. So a crash leaves the old ring or the new one.
3. Putting in place goes through a workbench (`kagimori.ring_stores.workbench`), so that who
   slept over it changes nothing any more.
4. The highest file is never removed. A writer that slept while others went on may therefore
   give a number away that is free again but lies below: it looks afterwards whether the highest
   state descends from its own, and if not, has lost.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from kagimori.errors import ConflictError, RingMalformedError, StoreError
from kagimori.keys.protection import elements, xml
from kagimori.ring_stores import safe_files, taken_away
from kagimori.ring_stores.taken_away import TakenAway
from kagimori.ring_stores.workbench import Workbench, Workbenches

_LINEAGE = 64
_LOOKS = 200
_CHANGE = f"{{{xml.KAGIMORI}}}change"
_ADD = f"{{{xml.KAGIMORI}}}add"
_REMOVE = f"{{{xml.KAGIMORI}}}remove"


@dataclass(frozen=True, slots=True)
class State:
    """
    A state file.

    Attributes:
        number: 0 stands for "there is none yet".
        commit: the random name of the commit that made it.
        lineage: the names of the commits before, the newest first.
        ring_state: the ring's own state element as text; empty where it has given none.
        add: names and texts to put in place, exactly as they will lie.
        remove: names to take away.
        is_applied: whether all that was put in place.
        taken: what this commit and those before took away.
    """

    number: int = 0
    commit: str = ""
    lineage: tuple[str, ...] = ()
    ring_state: str = ""
    add: dict[str, str] = field(default_factory=dict, repr=False)
    remove: tuple[str, ...] = ()
    is_applied: bool = True
    taken: TakenAway = field(default_factory=TakenAway, repr=False)

    def followed_by(
        self,
        ring_state: str,
        add: dict[str, str],
        remove: tuple[str, ...],
        taken: TakenAway | None = None,
    ) -> State:
        """
        Return the state that a commit on this one makes.
        """
        before = (self.commit,) if self.commit else ()
        return State(
            self.number + 1,
            secrets.token_hex(16),
            (*before, *self.lineage)[:_LINEAGE],
            ring_state or self.ring_state,
            add,
            remove,
            is_applied=False,
            taken=taken or self.taken,
        )

    def applied(self) -> State:
        """
        Return this state once its change is in place: what it carried has gone from it.
        """
        return State(
            self.number, self.commit, self.lineage, self.ring_state, taken=self.taken
        )

    def text(self) -> str:
        """
        Return the state file's text.
        """
        if self.ring_state:
            root = xml.parse(self.ring_state, what="The ring's state")
        else:
            root = xml.element(f"{{{xml.KAGIMORI}}}state")
        attributes = {"commit": self.commit, "after": " ".join(self.lineage)}
        if self.is_applied:
            attributes["applied"] = "true"
        change = xml.child(root, _CHANGE, attributes)
        for name, text in self.add.items():
            xml.child(change, _ADD, {"name": name}, text)
        for name in self.remove:
            xml.child(change, _REMOVE, {"name": name})
        self.taken.write(change)
        return xml.BOM + xml.write(root, declaration=True)


def parse_state(text: str, number: int, path: Path) -> State:
    """
    Read a state file.

    Raises:
        RingMalformedError: this is none.
    """
    root = xml.parse(text, what=str(path))
    change = root.find(_CHANGE)
    if not elements.is_state(root) or change is None or not change.get("commit"):
        raise RingMalformedError(
            f"{path} is no state file of a ring.",
            hint="Restore it from a backup; no key is made in its place.",
        )
    root.remove(change)
    return State(
        number,
        change.get("commit", ""),
        tuple(change.get("after", "").split()),
        xml.write(root) if root.get("generation") else "",
        {one.get("name", ""): one.text or "" for one in change.findall(_ADD)},
        tuple(one.get("name", "") for one in change.findall(_REMOVE)),
        change.get("applied") == "true",
        taken_away.read(change),
    )


class Journal:
    """
    The state files of one ring.

    Args:
        folder: where they lie.
        before: what a state file's name begins with; the number follows.
        after: what it ends with.
    """

    def __init__(self, folder: Path, before: str, after: str) -> None:
        self._folder = folder
        self._before = before
        self._after = after
        self.workbenches = Workbenches(folder, before)
        self._pattern = re.compile(
            re.escape(before) + r"([1-9]\d{0,17})" + re.escape(after), re.ASCII
        )

    def number(self, name: str) -> int:
        """
        Return the number in the name of a state file, 0 for any other file.
        """
        found = self._pattern.fullmatch(name)
        return int(found[1]) if found else 0

    def highest(self) -> int:
        """
        Return the highest number, 0 where there is no state file.
        """
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return 0
        return max(map(self.number, names), default=0)

    def path(self, number: int) -> Path:
        """
        Return the path of a state file.
        """
        return self._folder / f"{self._before}{number}{self._after}"

    def read(self, number: int) -> State:
        """
        Read a state file; number 0 gives the state before any.

        Raises:
            FileNotFoundError: it is there no longer: a higher one is.
        """
        if not number:
            return State()
        path = self.path(number)
        return parse_state(safe_files.read_text(path), number, path)

    def latest(self) -> State:
        """
        Read the state file with the highest number.

        Raises:
            StoreError: it kept changing all the time.
        """
        for _ in range(_LOOKS):
            with contextlib.suppress(FileNotFoundError):
                return self.read(self.highest())
        raise changing(str(self._folder))

    def publish(self, state: State) -> None:
        """
        Commit a state.

        Raises:
            ConflictError: another writer was faster; nothing was written.
        """
        path = self.path(state.number)
        temporary = safe_files.write_temporary(self._folder, state.text())
        try:
            safe_files.give_new_name(temporary, path)
        except FileExistsError:
            raise _conflict() from None
        safe_files.sync_folder(self._folder)
        latest = self.latest()
        if state.commit in (latest.commit, *latest.lineage):
            return
        # We slept through other commits, and our number lies below theirs.
        with contextlib.suppress(FileNotFoundError):
            if self.read(state.number).commit == state.commit:
                safe_files.remove(path)
        raise _conflict()

    def is_latest(self, state: State) -> bool:
        """
        Whether no higher state file has come.
        """
        return self.highest() == state.number

    def is_unchanged(self, state: State) -> bool:
        """
        Whether a state is still the latest, and applied as little or as much as it was.
        """
        latest = self.latest()
        return (latest.commit, latest.is_applied) == (state.commit, state.is_applied)

    def mark_applied(self, state: State, bench: Workbench) -> None:
        """
        Take what a state carried out of it, since it is in place.

        Raises:
            SupersededError: others were faster; nothing was changed.
        """
        bench.place(state.applied().text(), self.path(state.number))
        safe_files.sync_folder(self._folder)

    def prune(self, state: State) -> None:
        """
        Remove state files below this one, workbenches, and what dead writers left.
        """
        self.workbenches.clear(state.number)
        for path in list(self._folder.iterdir()):
            if 0 < self.number(path.name) < state.number:
                safe_files.remove(path)
        safe_files.drop_stale_temporaries(self._folder)


def changing(where: str) -> StoreError:
    """
    Return the error of a ring that never held still.
    """
    return StoreError(
        f"The ring at {where} kept changing while it was read.",
        hint="Try again in a moment.",
        transient=True,
    )


def _conflict() -> ConflictError:
    return ConflictError("Another writer changed the ring first.")
