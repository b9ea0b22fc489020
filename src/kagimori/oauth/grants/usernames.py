"""
The names of users, for the tokens of strict legacy alone.

A username never changes, so what was read once stays true; a refresh reads nothing more for it.
"""

from __future__ import annotations

from typing import Final

from kagimori.identity.user import USERS
from kagimori.storage.store import Store

CAPACITY: Final = 10_000


class Usernames:
    """
    Remembers which username a user's id belongs to.

    Args:
        store: where users lie.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[tuple[str, str], str] = {}

    def remember(self, tenant: str, user: str, name: str) -> None:
        """
        Take in a name.
        """
        if len(self._names) >= CAPACITY:
            self._names.clear()
        self._names[tenant, user] = name

    async def find(self, tenant: str, user: str) -> str | None:
        """
        Return a user's name, ``None`` where there is no such user.

        Raises:
            StoreError: as the store raises.
        """
        name = self._names.get((tenant, user))
        if name is None:
            found = await USERS.get(self._store, tenant, user)
            if found is None:
                return None
            name = found.value.username
            self.remember(tenant, user, name)
        return name
