"""
Whether a ring's files outlive the container that wrote them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.durability import lost_at_restart
from kagimori.ring_stores.file import FolderStore

MOUNTS = r"""
22 27 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/a
23 22 0:22 / /dev/shm rw shared:2 - tmpfs tmpfs rw,size=64k
24 22 8:1 /volumes/keys /home/site rw,relatime master:1 - ext4 /dev/sda1 rw
25 24 0:23 / /home/site/cache rw - tmpfs tmpfs rw
26 22 8:2 / /with\040blank rw - xfs /dev/sdb rw
27 24 0:24 / /home/site/share rw - cifs //server/share rw
28 22 0:25 / /twice rw - tmpfs tmpfs rw
29 22 8:3 / /twice rw - ext4 /dev/sdc rw
not a mount
"""


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/srv/keys", "container"),
        ("/", "container"),
        ("/homes/keys", "container"),
        ("/dev/shm/keys", "memory"),
        ("/home/site/cache/keys", "memory"),
        ("/home/site/keys", ""),
        ("/home/site/share/keys", ""),
        ("/with blank/keys", ""),
        ("/twice/keys", ""),
    ],
)
def test_what_goes_with_the_container_is_told(tmp_path: Path, place: str, said: str):
    """
    Pain 6: the container's own layer and memory are gone after a restart, volumes are not.
    """
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    told = lost_at_restart(Path(place), mounts)

    assert bool(said) == bool(told)
    assert said in told


def test_nothing_is_claimed_where_nobody_can_tell(tmp_path: Path):
    """
    Other systems have no list of mounts.
    """
    assert "" == lost_at_restart(tmp_path, tmp_path / "missing")


def test_stores_in_files_say_it(tmp_path: Path):
    """
    A folder and a document at one place say the same of it.
    """
    told = lost_at_restart(tmp_path)
    folder, document = FolderStore(tmp_path), DocumentStore(tmp_path / "ring.xml")

    assert bool(told) == bool(folder.lost_at_restart())
    assert bool(told) == bool(document.lost_at_restart())
