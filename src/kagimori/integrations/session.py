"""
The session of one browser, as an application sees it, and as it lies in its cookie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from datetime import datetime
from typing import Any

import msgspec

from kagimori.clock import seconds
from kagimori.crypto.digests import random_id
from kagimori.integrations.cookies import Reading, SetCookie
from kagimori.integrations.packing import encode, pack, unpack


class Record(msgspec.Struct, frozen=True):
    """
    A session as it lies in its cookie.

    Attributes:
        created: POSIX seconds of the sign-in.
        data: packed.
        lasts: seconds without a request after which it ends, where that is its own.
        origin: the id of the session that it was moved from, where that is kept on the server.
    """

    id: str
    created: int
    data: dict[str, Any]
    lasts: int | None = None
    origin: str | None = None

    def content(self) -> dict[str, Any]:
        """
        Return the entries as the application put them in.

        Raises:
            ValueError: they were not made by `Session.record`.
        """
        return {name: unpack(value) for name, value in self.data.items()}


class Session(MutableMapping[str, Any]):
    """
    What an application keeps of one browser, as a dict with text for keys.

    What it may hold says `kagimori.integrations.packing`. A change deep inside is seen too.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        *,
        record: Record | None = None,
        reading: Reading | None = None,
        stale: tuple[SetCookie, ...] = (),
        is_moved: bool = False,
        origin: str | None = None,
    ) -> None:
        self.id = record.id if record else random_id()
        self.accessed = False
        self.modified = is_moved
        self._data = data or {}
        self._before = encode(self._data)
        self._created = record.created if record else None
        self.lasts = record.lasts if record else None
        self._reading = reading or Reading()
        self._stale = stale
        self._is_moved = is_moved
        self._origin = record.origin if record else origin
        self._ended: str | None = None
        # A session without content is kept where something was bound to its id.
        self._is_kept = record is not None and not self._data

    @property
    def is_new(self) -> bool:
        """
        Whether the browser brought no good session.
        """
        return self._reading.payload is None and not self._is_moved

    @property
    def is_empty(self) -> bool:
        """
        Whether there is nothing to keep.
        """
        return not self._data and not self._is_kept

    @property
    def is_changed(self) -> bool:
        """
        Whether it is not what the browser brought.
        """
        if self.modified:
            return True
        return self.accessed and encode(self._data) != self._before

    def sign_in(self, **entries: object) -> None:
        """
        Keep entries of whoever signed in, under a new id and with a new beginning.
        """
        self.renew_id()
        self.update(entries)

    def sign_out(self) -> None:
        """
        Forget everything.
        """
        self.clear()
        self.renew_id()
        self._is_kept = False

    def renew_id(self) -> None:
        """
        Give the session another id: call this whenever rights change.
        """
        self.mark_accessed()
        self.id, self._created, self.modified = random_id(), None, True
        self._ended, self._origin = self._origin or self._ended, None

    def keep(self) -> str:
        """
        Return the id, and keep the session although it may be empty.
        """
        self.mark_accessed()
        if not self._is_kept:
            self._is_kept = True
            self.modified = self.modified or self._created is None
        return self.id

    def content(self) -> dict[str, Any]:
        """
        Return the entries, for a framework that keeps them itself.
        """
        return dict(self._data)

    def replace(self, data: Mapping[str, Any]) -> None:
        """
        Take the entries that a framework kept.
        """
        self._data = dict(data)
        self.modified = True
        self._is_kept = False

    def mark_accessed(self) -> None:
        """
        Note that the answer depends on the session.
        """
        self.accessed = True

    def record(self, now: datetime) -> Record:
        """
        Return the session as it goes into its cookie.

        Raises:
            TypeError: it holds something that has no place in JSON.
        """
        created = seconds(now) if self._created is None else self._created
        packed = {str(name): pack(value) for name, value in self._data.items()}
        return Record(self.id, created, packed, self.lasts, self._origin)

    @property
    def created(self) -> int | None:
        """
        When the browser signed in, in POSIX seconds; ``None`` for just now.
        """
        return self._created

    @property
    def ended(self) -> str | None:
        """
        The id of the session that it was moved from, once that must not be good any more.
        """
        return self._ended

    @property
    def reading(self) -> Reading:
        """
        What the browser brought.
        """
        return self._reading

    @property
    def stale(self) -> tuple[SetCookie, ...]:
        """
        What makes the browser forget the cookies that sessions were moved from.
        """
        return self._stale

    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.accessed = True
        self._data[key] = value

    def __delitem__(self, key: str) -> None:
        self.accessed = True
        del self._data[key]

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        return iter(self._data)

    def __len__(self) -> int:
        self.accessed = True
        return len(self._data)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._data)} entries>"
