"""
Whether files at a place outlive the container or machine that wrote them.
"""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_IN_CONTAINER = frozenset({"overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs"})


def lost_at_restart(path: Path, mounts: Path = _MOUNTS) -> str:
    """
    Say why files at a path do not last; empty where they do, or where nobody can tell.

    A path on a container's own writable layer, and not on a volume, goes with the container;
    one in memory goes with the machine.

    Args:
        mounts: Linux's list of mounts; elsewhere there is none, and no claim is made.
    """
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
        wanted = path.resolve()
    except OSError:
        return ""
    kind, longest = "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5:
            continue
        at = Path(_unescaped(fields[4]))
        # Of mounts on one point the last one is on top.
        if wanted.is_relative_to(at) and len(at.parts) >= longest:
            kind, longest = after.split(" ")[0], len(at.parts)
    if kind in _IN_MEMORY:
        return f"{path} lies in memory and is gone after a restart"
    if kind in _IN_CONTAINER:
        return (
            f"{path} lies in the container's own layer and is gone with the container"
        )
    return ""


def _unescaped(text: str) -> str:
    # Blanks and the like stand as three octal digits (proc(5)).
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
