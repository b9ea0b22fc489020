"""
A process beside the tests that uses a store: to race against, and to be killed.

``python -m kagimori.testing.conformance.store_worker VERB OPENER PLACE [ARGUMENT]`` where OPENER
is ``module:function``, and the function opens the store that lies in the folder PLACE.

Verbs:
    increment N: adds one to the number `counter`, N times.
    pairs NAME: commits pairs of documents for ever, and says on its standard output, after
        each, which pair now has which number: ``pair number``, a line each.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from kagimori.storage.store import ABSENT, DocumentKey, Put, Store
from kagimori.testing.conformance.counting import TENANT, increment

PAIRS = 12
"""How many pairs one worker writes side by side."""


def pair_keys(pair: str) -> tuple[DocumentKey, DocumentKey]:
    """
    Return the two documents of a pair: whoever dies, they hold the same number.
    """
    return DocumentKey("pair", f"{pair}-left"), DocumentKey("pair", f"{pair}-right")


def opened(opener: str, place: Path) -> Store:
    """
    Open the store that an opener and a folder name.
    """
    module, _, name = opener.partition(":")
    function: Callable[[Path], Store] = getattr(importlib.import_module(module), name)
    return function(place)


async def _increment(store: Store, times: int) -> None:
    for _ in range(times):
        await increment(store)


async def _pairs(store: Store, name: str) -> None:
    async def task(pair: str) -> None:
        left, right = pair_keys(pair)
        while True:
            loaded = await store.load_many(TENANT, [left, right])
            versions = [d.version if d else ABSENT for d in loaded.documents]
            found = loaded.documents[0]
            number = int(found.body.split()[0]) + 1 if found else 1
            # Of random size, so that pages overflow, split and move.
            body = b"%d %s" % (number, b"x" * random.choice((9, 700, 9000)))  # noqa: S311
            indexes = {"number": str(number)}
            await store.commit(
                TENANT,
                [
                    Put(*left, body, versions[0], indexes),
                    Put(*right, body, versions[1], indexes),
                ],
            )
            # Unbuffered: what was said stays said, whenever the kill comes.
            os.write(sys.stdout.fileno(), b"%s %d\n" % (pair.encode(), number))

    await asyncio.gather(*(task(f"{name}.{n}") for n in range(PAIRS)))


async def _main(verb: str, opener: str, place: str, argument: str) -> None:
    store = opened(opener, Path(place))
    try:
        if verb == "increment":
            await _increment(store, int(argument))
        else:
            await _pairs(store, argument)
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:5]))
