"""
A process beside the tests that uses a key store: to race against, and to be killed.

``python -m kagimori.testing.conformance.key_store_worker VERB OPENER PLACE NAME`` where OPENER is
``module:function``, and the function opens the store that lies in the folder PLACE. A worker
says ``ready`` when it has opened the store, and begins when it is given a line.

Verbs:
    create: commits one element on the condition that nothing is stored; says ``won`` or
        ``lost``.
    append: commits 5 elements one by one, again on conflict; says the names.
    churn: for ever commits a new element and removes the one before, and says each new one's
        name once it is committed.
"""

from __future__ import annotations

import importlib
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from kagimori.errors import ConflictError
from kagimori.keys.protection import elements, xml
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.protection.ticks import Ticks
from kagimori.keys.store import Element, KeyStore

ROUNDS = 5


def revocation(key_id: str, reason: str = "a test") -> Element:
    """
    Return an element as a store may be given it: the revocation of a key.
    """
    root = elements.revocation_element(
        Revocation(key_id, Ticks(638_000_000_000_000_001)), reason
    )
    return Element(elements.friendly_name(root), xml.write(root))


def named(text: str) -> Element:
    """
    Return a revocation whose key id follows from a text.
    """
    return revocation(str(uuid.uuid5(uuid.NAMESPACE_URL, text)), text)


def opened(opener: str, place: Path) -> KeyStore:
    """
    Open the store that an opener and a folder name.
    """
    module, _, name = opener.partition(":")
    function: Callable[[Path], KeyStore] = getattr(
        importlib.import_module(module), name
    )
    return function(place)


def change(store: KeyStore, add: tuple[Element, ...], remove: tuple[str, ...]) -> None:
    """
    Commit a change, again on conflict until it holds.
    """
    while True:
        try:
            store.commit(add, remove, store.load().version)
        except ConflictError:
            continue
        return


def create(store: KeyStore, name: str) -> None:
    """
    Commit one element on the condition that nothing is stored.
    """
    try:
        store.commit([named(name)], (), None)
    except ConflictError:
        say("lost")
    else:
        say("won")


def append(store: KeyStore, name: str) -> None:
    """
    Commit several elements one by one.
    """
    for number in range(ROUNDS):
        element = named(f"{name}-{number}")
        change(store, (element,), ())
        say(element.name)


def churn(store: KeyStore, name: str) -> None:
    """
    Replace one element by the next, for ever.
    """
    before: tuple[str, ...] = ()
    while True:
        element = named(f"{name}-{uuid.uuid4()}")
        change(store, (element,), before)
        say(element.name)
        before = (element.name,)


def say(text: str) -> None:
    """
    Write a line that the tests read at once.
    """
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


VERBS = {"append": append, "churn": churn, "create": create}


def main() -> None:
    """
    Run the verb on the command line.
    """
    verb, opener, place, name = sys.argv[1:]
    store = opened(opener, Path(place))
    say("ready")
    sys.stdin.readline()
    VERBS[verb](store, name)


if __name__ == "__main__":
    main()
