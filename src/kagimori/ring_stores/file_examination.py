"""
What a process may do with a ring in files, each right tried separately. Leaves nothing behind.
"""

from __future__ import annotations

from pathlib import Path

from kagimori.errors import KagimoriError, StoreError
from kagimori.keys.findings import Finding
from kagimori.keys.store import KeyStore
from kagimori.ring_stores import safe_files
from kagimori.ring_stores.durability import lost_at_restart
from kagimori.ring_stores.workbench import Workbenches


def examine(store: KeyStore, folder: Path, *, read_only: bool) -> tuple[Finding, ...]:
    """
    Try to read, and to write as the ring is written: by a name that can be given once only.

    Args:
        folder: where the files of the ring lie.
    """
    found = [_read(store)]
    if not read_only and folder.exists():
        found.append(_write(folder))
    elif not read_only:
        text = f"There is no folder {folder} yet."
        hint = "The first write makes it; make the ring: kagimori ring init."
        found.append(Finding("write if unchanged", ok=True, text=f"{text} {hint}"))
    lost = lost_at_restart(folder)
    if lost:
        remedy = "Mount a volume there, or name a ring in a database or a blob."
        found.append(Finding("lasting", ok=False, text=f"{lost}.", remedy=remedy))
    return tuple(found)


def _read(store: KeyStore) -> Finding:
    try:
        count = len(store.load().elements)
    except KagimoriError as error:
        return Finding("read", ok=False, text=error.text, remedy=error.hint)
    return Finding("read", ok=True, text=f"{count} elements were read.")


def _write(folder: Path) -> Finding:
    right = "write if unchanged"
    temporary = named = None
    try:
        with safe_files.declared(str(folder)):
            temporary = safe_files.write_temporary(folder, "kagimori ring doctor")
            named = temporary.with_name(f"{temporary.stem}-once.tmp")
            safe_files.give_new_name(temporary, named)
            temporary = safe_files.write_temporary(folder, "kagimori ring doctor")
            try:
                safe_files.give_new_name(temporary, named)
            except FileExistsError:
                # A share may grant files and refuse the folders that commits go through.
                with Workbenches(folder, "examined-").set_up(1) as bench:
                    bench.place("kagimori ring doctor", named)
                    bench.take(named)
                text = "A file was written under a name that cannot be taken twice."
                return Finding(right, ok=True, text=text)
    except StoreError as error:
        return Finding(right, ok=False, text=error.text, remedy=error.hint)
    finally:
        for path in (temporary, named):
            if path is not None:
                safe_files.remove(path)
    return Finding(
        right,
        ok=False,
        text="A name that was taken could be taken again: two writers would lose keys.",
        remedy="Let the ring lie on a file system that refuses to replace by a link.",
    )
