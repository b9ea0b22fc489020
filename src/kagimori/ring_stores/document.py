"""
A ring in one XML document, as ASP.NET Core's Azure Blob store lays it out, in a file.

Rules of this module:

1. The children of the root are the ring, whatever the root's name; a missing or empty file is
   an empty ring. It is written unindented, with a byte order mark.
2. A commit is the exclusive creation of the sidecar ``<file>.state-<n>``, which carries the
   whole new document; the file itself is replaced afterwards, by the winner or by whoever finds
   it behind. No lock is needed, and no writer waits.
3. The document names the commit that it came from. While it names the latest one, it is the
   ring, with whatever foreign writers added to it. If it names an earlier one or none (a writer
   slept, or a foreign one wrote back what it had read before), the sidecar stands above it, and
   elements that only the file holds are kept, unless a commit had removed them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kagimori.errors import ConflictError, RingReadOnlyError
from kagimori.keys.findings import Finding
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Element, Snapshot
from kagimori.ring_stores import safe_files
from kagimori.ring_stores.durability import lost_at_restart
from kagimori.ring_stores.file import digest_of
from kagimori.ring_stores.journal import Journal, State, changing
from kagimori.ring_stores.workbench import SupersededError

_LOOKS = 200
_MOST_REMOVED = 256
_COMMIT = f"{{{xml.KAGIMORI}}}commit"
_DOCUMENT = "document"


class DocumentStore:
    """
    A `KeyStore` over a single file.

    Args:
        path: the document; made by the first commit, with its folder.
        read_only: refuse commits, and leave everything as it is.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._folder = path.parent
        self._read_only = read_only
        self._journal = Journal(self._folder, f"{path.name}.state-", "")

    @property
    def name(self) -> str:
        """
        The document's path.
        """
        return str(self._path)

    def others_may_write(self) -> bool:
        """
        Whether group or world may write to the document or its folder.
        """
        return safe_files.others_may_write([self._folder, self._path])

    def loose_modes(self) -> tuple[str, ...]:
        """
        Say what of the ring group or world may read or write.
        """
        return safe_files.loose_modes([self._path])

    def lost_at_restart(self) -> str:
        """
        Say why the ring does not outlive this container or machine; empty where it does.
        """
        return lost_at_restart(self._path)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try each right separately; leaves nothing behind.
        """
        # Only the doctor asks, so nobody else pays for the import.
        from kagimori.ring_stores.file_examination import examine

        return examine(self, self._folder, read_only=self._read_only)

    def probe(self) -> str | None:
        """
        Return inode, size and time of the document, and the number of the latest state.
        """
        with safe_files.declared(self.name):
            number = self._journal.highest()
            try:
                found = self._path.lstat()
            except FileNotFoundError:
                return f"{number}" if number else None
        return f"{number}.{found.st_ino}.{found.st_size}.{found.st_mtime_ns}"

    def load(self) -> Snapshot:
        """
        Read the ring, and put in place what a writer that died had committed.
        """
        with safe_files.declared(self.name):
            state, found, is_behind = self._look()
            if not self._read_only and state.number:
                # The commit is done; who cannot finish it (a full disk) reads it all the same.
                with contextlib.suppress(OSError):
                    if is_behind:
                        self._put_in_place(state)
                    else:
                        self._journal.workbenches.clear(state.number)
        return _snapshot(state, found)

    def commit(
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        """
        Add and remove elements if the ring is still at version `expect`.

        Raises:
            ConflictError: the ring changed since; nothing was written.
            RingReadOnlyError: this store was opened read-only.
            StoreError: the operating system refuses.
        """
        if self._read_only:
            raise RingReadOnlyError(f"The ring at {self.name} was opened read-only.")
        ring_state = next((e.xml for e in add if e.name == elements.STATE), "")
        added = [_compact(element) for element in add if element.name != elements.STATE]
        with safe_files.declared(self.name):
            safe_files.make_folder(self._folder)
            state, found, _ = self._look()
            if _snapshot(state, found).version != expect:
                raise ConflictError("The ring changed since it was read.")
            replaced = {element.name for element in added} | set(remove)
            kept = [element for element in found if element.name not in replaced]
            new = kept + added
            gone = dict.fromkeys((*state.remove, *remove))
            for element in new:
                gone.pop(element.name, None)
            after = state.followed_by(ring_state, {}, tuple(gone)[-_MOST_REMOVED:])
            after.add[_DOCUMENT] = _document(after, new)
            self._journal.publish(after)
            with contextlib.suppress(OSError):
                self._put_in_place(after)
            state, found, _ = self._look()
            return _snapshot(state, found)

    def _look(self) -> tuple[State, list[Element], bool]:
        """
        Read state and elements, again until no commit came in between.

        Returns:
            The state, the ring's elements, and whether the document is behind.
        """
        for _ in range(_LOOKS):
            try:
                state = self._journal.read(self._journal.highest())
            except FileNotFoundError:
                continue
            try:
                text = safe_files.read_text(self._path)
            except FileNotFoundError:
                text = ""
            if not self._journal.is_latest(state):
                continue
            commit, mark, found = _elements(text, str(self._path))
            is_known = not commit or commit in state.lineage
            if state.number and text and commit == state.commit:
                return replace(state, ring_state=mark), found, False
            if not state.number or (text and not is_known):
                # Another ring was put here on purpose: it is the ring from now on, and what
                # is committed on it descends from it.
                before = (commit, *state.lineage) if commit else state.lineage
                return replace(state, ring_state=mark, lineage=before), found, False
            _, _, ours = _elements(state.add.get(_DOCUMENT, ""), state.commit)
            names = {element.name for element in ours} | set(state.remove)
            theirs = [element for element in found if element.name not in names]
            return state, ours + theirs, True
        raise changing(self.name)

    def _put_in_place(self, state: State) -> None:
        benches = self._journal.workbenches
        # From here on, who slept over an earlier state cannot bring back its document.
        benches.clear(state.number - 1)
        with benches.set_up(state.number) as bench:
            latest, found, is_behind = self._look()
            if latest.commit != state.commit or not is_behind:
                return
            try:
                bench.place(xml.BOM + _document(latest, found), self._path)
            except SupersededError:
                return
            safe_files.sync_folder(self._folder)
        self._journal.prune(state)


def _compact(element: Element) -> Element:
    root = xml.parse(element.xml, what=f"The element {element.name}")
    return Element(elements.friendly_name(root), xml.write(root))


def _document(state: State, found: list[Element]) -> str:
    if state.ring_state:
        mark = xml.parse(state.ring_state, what="The ring's state")
    else:
        mark = xml.element(f"{{{xml.KAGIMORI}}}state")
    mark.set(_COMMIT, state.commit)
    inner = "".join(element.xml for element in found)
    return f"{xml.DECLARATION}<repository>{inner}{xml.write(mark)}</repository>"


def _elements(text: str, what: str) -> tuple[str, str, list[Element]]:
    """
    Return the commit that a document names, the ring's state, and the other elements.
    """
    if not text:
        return "", "", []
    commit = mark = ""
    found = []
    for root in xml.children(xml.parse(text, what=what)):
        if elements.is_state(root):
            commit = root.attrib.pop(_COMMIT, "")
            root.tail = None
            mark = xml.write(root) if root.get("generation") else ""
        else:
            root.tail = None
            found.append(Element(elements.friendly_name(root), xml.write(root)))
    return commit, mark, found


def _snapshot(state: State, found: list[Element]) -> Snapshot:
    if not found and not state.number:
        return Snapshot((), None)
    everything = list(found)
    if state.ring_state:
        everything.append(Element(elements.STATE, state.ring_state))
    return Snapshot(tuple(everything), f"{state.number}.{digest_of(everything)}")
