"""
A second envelope for each key, for the day on which the first wrapper is gone for good.

Rules of this module:

1. Second envelopes lie in root elements of ours, which .NET skips: a second
   ``<encryptedSecret>`` inside a key would make it call the key unreadable, and mint.
2. They are written in one commit, each unwrapped again and compared before.
3. They are read where the first envelope cannot be opened for good, and not before: a vault
   that is down for a minute is no disaster.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from kagimori.events import Severity
from kagimori.keys.protection import rewriting
from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.envelopes import (
    Envelopes,
    lies_under,
    newest_of,
    wrap_checked,
)
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.parallel import in_parallel
from kagimori.keys.protection.plan import NOTHING_TO_DO, Plan
from kagimori.keys.protection.rewrapping import opened_somehow
from kagimori.keys.store import Element
from kagimori.keys.wrapping import KeyWrapper


class Doubling:
    """
    Gives every key of a ring a second envelope.

    Args:
        recovery: what wraps the second envelopes.

    Raises:
        KeyWrapError: the vault does not say which version is its newest.
    """

    def __init__(self, envelopes: Envelopes, recovery: KeyWrapper) -> None:
        self._envelopes = envelopes
        self._recovery = recovery
        self._newest = newest_of(recovery)
        self._made: dict[str, Element] = {}

    def prepare(self, contents: Contents) -> None:
        """
        Wrap what is to be wrapped, several keys at a time, and keep it for `decide`.

        Raises:
            KeyRingError: a key cannot be opened, or the wrapper refuses.
        """
        wanted = [key for key in self._wanted(contents) if key.id not in self._made]
        in_parallel([partial(self._make, contents, key) for key in wanted])

    def decide(self, contents: Contents, _now: datetime) -> Plan:
        """
        Write the second envelopes that are missing.

        Raises:
            KeyRingError: as `prepare`.
        """
        self.prepare(contents)
        elements = tuple(self._made[key.id] for key in self._wanted(contents))
        if not elements:
            return NOTHING_TO_DO
        fields = {"wrapper": self._recovery.name, "keys": str(len(elements))}
        return Plan(add=elements, tales=(("ring.doubled", Severity.WARNING, fields),))

    def _wanted(self, contents: Contents) -> list[ProtectionKey]:
        # A revoked key opens nothing any more, so nobody will miss it.
        return [
            key
            for key in contents.keys
            if not key.is_revoked and not self._is_guarded(contents, key)
        ]

    def _is_guarded(self, contents: Contents, key: ProtectionKey) -> bool:
        second = contents.recoveries.get(key.id)
        return second is not None and lies_under(
            second.wrapped, self._recovery, self._newest
        )

    def _make(self, contents: Contents, key: ProtectionKey) -> None:
        second = contents.recoveries.get(key.id)
        root = opened_somehow(
            key.stored, self._envelopes, second.wrapped if second else None
        )
        wrapped = wrap_checked(
            self._recovery, rewriting.secret_in(root, key.id), key.id
        )
        self._made[key.id] = rewriting.recovery_element(key.id, wrapped)


def undouble(contents: Contents, _now: datetime) -> Plan:
    """
    Take all second envelopes away.
    """
    names = tuple(one.name for one in contents.recoveries.values())
    if not names:
        return NOTHING_TO_DO
    fields = {"keys": str(len(names))}
    return Plan(remove=names, tales=(("ring.undoubled", Severity.WARNING, fields),))
