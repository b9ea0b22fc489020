"""
The seam behind which the elements of a protection ring are stored.

Rules of this module:

1. A store lays elements out exactly as .NET does for its kind, reads them, and compares and swaps.
   It neither retries nor interprets.
2. `commit` is all or nothing as far as any later `load` can tell, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Element:
    """
    One element of a ring as stored.

    Attributes:
        name: its friendly name, as .NET names it (``key-{guid}``, ``revocation-…``); cosmetic.
        xml: the element as XML text; it may hold a key in the clear, so no repr shows it.
    """

    name: str
    xml: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    All elements of a ring at one moment, and the version that a commit is compared with.

    `version` is opaque and ``None`` where nothing is stored at all.
    """

    elements: tuple[Element, ...]
    version: str | None


class KeyStore(Protocol):
    """
    Stores the elements of one ring.
    """

    @property
    def name(self) -> str:
        """
        Say where the ring lies, for people: never a secret.
        """
        ...

    def load(self) -> Snapshot:
        """
        Read the whole ring.

        Raises:
            RingUnreadableError: something is there and cannot be read.
            StoreError: the store did not answer (then `transient`) or refuses.
        """
        ...

    def probe(self) -> str | None:
        """
        Return a cheap token that differs whenever `load` may give something else.
        """
        ...

    def commit(
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        """
        Add and remove elements if the ring is still at version `expect`.

        Args:
            add: elements to add; one whose name is stored already replaces it.
            remove: names of elements to remove; absent ones are no error.
            expect: `Snapshot.version` of the load that the change was decided on.

        Returns:
            The ring after the change.

        Raises:
            ConflictError: the ring changed since; nothing was written.
            RingReadOnlyError: this store was opened read-only.
            StoreError: the store refuses or does not answer.
        """
        ...
