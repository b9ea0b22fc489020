"""
A number in a document, which many count up: what worker processes need, and no pytest.
"""

from __future__ import annotations

from kagimori.errors import ContentionError
from kagimori.storage.store import (
    ABSENT,
    Decision,
    DocumentKey,
    Loaded,
    Put,
    Store,
    transact,
)

TENANT = "acme"


async def increment(store: Store, id_: str = "counter") -> int:
    """
    Add one to the number in a document, however often it takes; return the new number.
    """

    def decide(loaded: Loaded) -> Decision[int]:
        found = loaded.documents[0]
        number = int(found.body) + 1 if found else 1
        version = found.version if found else ABSENT
        put = Put("number", id_, b"%d" % number, version, {"parity": str(number % 2)})
        return Decision(number, (put,))

    while True:
        try:
            return await transact(store, TENANT, [DocumentKey("number", id_)], decide)
        except ContentionError:
            continue


async def number(store: Store, id_: str = "counter") -> int:
    """
    Return the number in a document, 0 where there is none.
    """
    loaded = await store.load_many(TENANT, [DocumentKey("number", id_)])
    return int(loaded.documents[0].body) if loaded.documents[0] else 0
