"""
Revoking a key as another node would: by an element in the store.
"""

from __future__ import annotations

from kagimori.keys.protection import elements, ticks, xml
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.store import Element
from tests.keys.protection.world import World


def revoke(world: World, key_id: str) -> None:
    root = elements.revocation_element(
        Revocation(key_id, ticks.from_datetime(world.clock.now()))
    )
    element = Element(elements.friendly_name(root), xml.write(root))
    store = world.store.real
    store.commit([element], (), store.load().version)
