"""
A ring in a folder, one file an element, as ASP.NET Core's ``PersistKeysToFileSystem`` has it.

Rules of this module (`aspnet-data-protection.md` 2.6):

1. Every ``*.xml`` in the folder is an element of the ring; one that is not well-formed makes
   the whole ring unreadable. Files are indented XML with a byte order mark, named as .NET does.
2. A commit is the exclusive creation of ``state-<n>.xml`` (see `kagimori.ring_stores.journal`).
   .NET skips those files. What .NET writers add or remove is seen at the next load.
3. Until the latest state is marked as applied it stands above the files; from then on the files
   are the ring, but for those that a commit removed and that came back as they were
   (see `kagimori.ring_stores.taken_away`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kagimori.errors import ConflictError, RingReadOnlyError, StoreError
from kagimori.keys.findings import Finding
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Element, Snapshot
from kagimori.ring_stores import safe_files
from kagimori.ring_stores.durability import lost_at_restart
from kagimori.ring_stores.journal import Journal, State, changing
from kagimori.ring_stores.workbench import SupersededError

_SUFFIX = ".xml"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)
_LOOKS = 200
_MOST_FILES = 20_000


class FolderStore:
    """
    A `KeyStore` over a folder, shared with .NET and between machines.

    Args:
        folder: where the ring lies; made by the first commit.
        read_only: refuse commits, and leave everything as it is.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only
        self._journal = Journal(folder, "state-", _SUFFIX)

    @property
    def name(self) -> str:
        """
        The folder's path.
        """
        return str(self._folder)

    def others_may_write(self) -> bool:
        """
        Whether group or world may write to the folder or a file of the ring.
        """
        return safe_files.others_may_write(self._paths())

    def loose_modes(self) -> tuple[str, ...]:
        """
        Say what of the ring group or world may read or write.
        """
        return safe_files.loose_modes(self._paths())

    def lost_at_restart(self) -> str:
        """
        Say why the ring does not outlive this container or machine; empty where it does.
        """
        return lost_at_restart(self._folder)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try each right separately; leaves nothing behind.
        """
        # Only the doctor asks, so nobody else pays for the import.
        from kagimori.ring_stores.file_examination import examine

        return examine(self, self._folder, read_only=self._read_only)

    def probe(self) -> str | None:
        """
        Return a digest of names, sizes and times of the files; ``None`` without a folder.
        """
        with safe_files.declared(self.name):
            try:
                with os.scandir(self._folder) as entries:
                    seen = sorted(_traces(entries))
            except FileNotFoundError:
                return None
        return hashlib.sha256(repr(seen).encode()).hexdigest()

    def load(self) -> Snapshot:
        """
        Read the ring, and put in place what a writer that died had committed.
        """
        with safe_files.declared(self.name):
            state, snapshot, stale = self._look()
            if not self._read_only and state.number:
                # The commit is done; who cannot finish it (a full disk) reads it all the same.
                with contextlib.suppress(OSError):
                    if stale or not state.is_applied:
                        self._apply(state, stale)
                    else:
                        self._journal.workbenches.clear(state.number)
        return snapshot

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
        ring_state = ""
        files: dict[str, str] = {}
        for element in add:
            if element.name == elements.STATE:
                ring_state = element.xml
            else:
                files[self._checked(element.name)] = _laid_out(element)
        gone = tuple(self._checked(name) for name in remove if name not in files)
        with safe_files.declared(self.name):
            safe_files.make_folder(self._folder)
            state, snapshot, stale = self._look()
            if snapshot.version != expect:
                raise ConflictError("The ring changed since it was read.")
            # The state before has to be in place, since only the highest one is looked at.
            if not state.is_applied:
                self._apply(state)
            before = {element.name: element.xml for element in snapshot.elements}
            taken = state.taken.followed_by(before, files, gone)
            after = state.followed_by(ring_state, files, gone, taken)
            self._journal.publish(after)
            with contextlib.suppress(OSError):
                self._apply(after, stale)
            return self._look()[1]

    def _checked(self, name: str) -> str:
        # A name becomes a path, so it is held to the letters that .NET allows.
        if not _NAME.fullmatch(name) or self._journal.number(name + _SUFFIX):
            raise StoreError("An element's name does not fit a file of a ring.")
        return name

    def _names(self) -> list[str]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        found = sorted(name for name in names if name.endswith(_SUFFIX))
        if len(found) > _MOST_FILES:
            raise StoreError(f"{self.name} holds more than {_MOST_FILES} files.")
        return found

    def _look(self) -> tuple[State, Snapshot, list[str]]:
        """
        Read everything, again until no commit came in between.

        Returns:
            The state, the ring, and the names of files that were removed and came back.
        """
        for _ in range(_LOOKS):
            try:
                # The state first: one that is applied was so before the files are listed.
                state = self._journal.read(self._journal.highest())
                names = self._names()
                if max(map(self._journal.number, names), default=0) != state.number:
                    continue
                texts = {
                    name.removesuffix(_SUFFIX): safe_files.read_text(
                        self._folder / name
                    )
                    for name in names
                    if not self._journal.number(name)
                }
            except FileNotFoundError:
                continue
            if self._journal.is_latest(state):
                stale = [name for name in texts if state.taken.has(name, texts[name])]
                for name in stale:
                    del texts[name]
                return state, _merged(state, texts), stale
        raise changing(self.name)

    def _apply(self, state: State, stale: Sequence[str] = ()) -> None:
        """
        Put in place what a state carries; safe to repeat, and beside others who do the same.

        Args:
            stale: names of files that were removed and came back: to be taken away.
        """
        benches = self._journal.workbenches
        # From here on, who slept over an earlier state cannot bring back what it carried.
        benches.clear(state.number - 1)
        with benches.set_up(state.number) as bench:
            if not self._journal.is_unchanged(state):
                return
            try:
                for name, text in state.add.items():
                    if self._text(name) != text:
                        bench.place(xml.BOM + text, self._path(name))
                for name in state.remove:
                    bench.take(self._path(name))
                for name in stale:
                    # Another writer may have laid something else there since we looked.
                    if state.taken.has(name, self._text(name) or ""):
                        bench.take(self._path(name))
                safe_files.sync_folder(self._folder)
                if not state.is_applied:
                    self._journal.mark_applied(state, bench)
            except SupersededError:
                return
        self._journal.prune(state)

    def _path(self, name: str) -> Path:
        return self._folder / (self._checked(name) + _SUFFIX)

    def _text(self, name: str) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return safe_files.read_text(self._path(name))
        return None

    def _paths(self) -> list[Path]:
        with safe_files.declared(self.name):
            return [self._folder, *(self._folder / name for name in self._names())]


def _traces(entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, int, int, int]]:
    for entry in entries:
        if entry.name.endswith(_SUFFIX):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield entry.name, found.st_ino, found.st_size, found.st_mtime_ns


def _laid_out(element: Element) -> str:
    root = xml.parse(element.xml, what=f"The element {element.name}")
    return xml.write(root, indent=True, declaration=True)


def _merged(state: State, texts: dict[str, str]) -> Snapshot:
    if not state.is_applied:
        texts = {
            name: text for name, text in texts.items() if name not in state.remove
        } | state.add
    found = [Element(name, text) for name, text in sorted(texts.items())]
    if state.ring_state:
        found.append(Element(elements.STATE, state.ring_state))
    if not found and not state.number:
        return Snapshot((), None)
    return Snapshot(tuple(found), f"{state.number}.{digest_of(found)}")


def digest_of(found: Sequence[Element]) -> str:
    """
    Return a digest of elements: what makes two readings of a ring the same version.
    """
    digest = hashlib.sha256()
    for element in found:
        for text in (element.name, element.xml):
            raw = text.encode()
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:32]
