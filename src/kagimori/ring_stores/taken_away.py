"""
What the commits on a ring in a folder took away, so that it does not come back by itself.

Rules of this module:

1. A removed file whose content lies there again under its name is not of the ring: a writer
   of another version may have slept, or a copy of the folder was laid over it. It is known by
   its digest, so what others lay there under the same name is theirs, and is merged.
2. What was replaced counts once its name has been removed: an earlier wrapping of a deleted
   key is as stale as its last one. While the name is in use it does not, since there would
   be no key rather than an old one.
3. A commit that adds the name again makes all its contents welcome.
4. The record is bounded. It is the second line: the first is `kagimori.ring_stores.workbench`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kagimori.keys.protection import xml

_MOST_NAMES = 256
_MOST_DIGESTS = 8
_TAKEN = f"{{{xml.KAGIMORI}}}taken"


@dataclass(frozen=True, slots=True)
class TakenAway:
    """
    Digests of former contents by name, the latest last.

    Attributes:
        gone: of names that the last commit that knew them removed.
        replaced: of names that are in use.
    """

    gone: dict[str, tuple[str, ...]] = field(default_factory=dict)
    replaced: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def has(self, name: str, text: str) -> bool:
        """
        Whether a file is one that was removed.
        """
        return name in self.gone and _digest(text) in self.gone[name]

    def followed_by(
        self, before: Mapping[str, str], add: Mapping[str, str], remove: Iterable[str]
    ) -> TakenAway:
        """
        Return the record once a commit has changed the ring.

        Args:
            before: the names and texts of the ring that the commit changes.
        """
        gone, replaced = dict(self.gone), dict(self.replaced)
        for name, text in add.items():
            known = gone.pop(name, ()) + replaced.pop(name, ())
            if name in before and before[name] != text:
                known += (_digest(before[name]),)
            if known:
                replaced[name] = known[-_MOST_DIGESTS:]
        for name in remove:
            known = gone.pop(name, ()) + replaced.pop(name, ())
            if name in before:
                known += (_digest(before[name]),)
            if known:
                gone[name] = known[-_MOST_DIGESTS:]
        return TakenAway(_latest(gone), _latest(replaced))

    def write(self, change: xml.Element) -> None:
        """
        Write the record into a state file's element.
        """
        for is_gone, names in ((True, self.gone), (False, self.replaced)):
            for name, digests in names.items():
                attributes = {"name": name, "digests": " ".join(digests)}
                if is_gone:
                    attributes["gone"] = "true"
                xml.child(change, _TAKEN, attributes)


def read(change: xml.Element) -> TakenAway:
    """
    Return the record that a state file's element holds.
    """
    record = TakenAway()
    for one in change.findall(_TAKEN):
        names = record.gone if one.get("gone") == "true" else record.replaced
        names[one.get("name", "")] = tuple(one.get("digests", "").split())
    return record


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _latest(names: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return dict(list(names.items())[-_MOST_NAMES:])
