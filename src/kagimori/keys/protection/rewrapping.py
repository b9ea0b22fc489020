"""
Wrapping the keys of a ring anew: by another wrapper, or by a newer version of the same.

Rules of this module:

1. All keys that can be opened are written in one commit: a reader finds the old envelopes or
   the new ones, never a mixture of half a ring, and a rewrapping that died wrote nothing.
2. Nothing is written that was not unwrapped again and compared.
3. A key that cannot be opened for good stays as it is, and the answer names it; one that cannot
   be opened at the moment stops the whole, since the next try may find it.
4. Done again, it does what is left: keys that lie under the newest version are not touched, and
   what was wrapped for a commit that another writer beat is used again.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from kagimori.errors import KeyRingError
from kagimori.events import Severity
from kagimori.keys.protection import rewriting
from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.elements import StoredKey
from kagimori.keys.protection.envelopes import (
    Envelopes,
    lies_under,
    newest_of,
    wrap_checked,
)
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.outcomes import Rewrapped
from kagimori.keys.protection.parallel import in_parallel
from kagimori.keys.protection.plan import NOTHING_TO_DO, Plan
from kagimori.keys.protection.xml import Element as Node
from kagimori.keys.store import Element
from kagimori.keys.wrapping import KeyWrapper, WrappedSecret


def opened_somehow(
    stored: StoredKey, envelopes: Envelopes, recovery: WrappedSecret | None
) -> Node:
    """
    Return a key with its secret in the clear, by its second envelope where the first is lost.

    Raises:
        KeyRingError: neither opens.
    """
    try:
        return rewriting.opened_key(stored, envelopes.unwrap)
    except KeyRingError as error:
        if recovery is None or getattr(error, "transient", False):
            raise
    return rewriting.opened_key(
        stored, lambda _, key_id: envelopes.unwrap(recovery, key_id)
    )


class Rewrapping:
    """
    One rewrapping, from the first look to the commit.

    Args:
        to: what is to wrap the keys.

    Raises:
        KeyWrapError: the vault does not say which version is its newest.
    """

    def __init__(self, envelopes: Envelopes, to: KeyWrapper) -> None:
        self._envelopes = envelopes
        self._to = to
        self._newest = newest_of(to)
        self._made: dict[str, tuple[StoredKey, Element]] = {}
        self._left: dict[str, str] = {}

    def prepare(self, contents: Contents) -> None:
        """
        Wrap what is to be wrapped, several keys at a time, and keep it for `decide`.

        Raises:
            KeyWrapError: a key cannot be opened at the moment, or the wrapper refuses.
        """
        wanted = [key for key in contents.keys if not self._is_ready(key)]
        in_parallel([partial(self._make, contents, key) for key in wanted])

    def decide(self, contents: Contents, _now: datetime) -> Plan:
        """
        Replace the envelopes of all keys that do not lie under the newest version.

        Raises:
            KeyWrapError: as `prepare`.
        """
        self.prepare(contents)
        elements = tuple(self._made[key.id][1] for key in self._wanted(contents))
        if not elements:
            return NOTHING_TO_DO
        fields = {"wrapper": self._to.name, "keys": str(len(elements))}
        return Plan(add=elements, tales=(("ring.rewrapped", Severity.WARNING, fields),))

    def outcome(self, before: Contents, plan: Plan) -> Rewrapped:
        """
        Say what came of it.

        Args:
            before: the ring that the rewrapping was begun on.
            plan: what was committed in the end.
        """
        written = {element.name for element in plan.add}
        changed = tuple(k.id for k in before.keys if k.stored.name in written)
        done = {*changed, *self._left}
        unchanged = tuple(key.id for key in before.keys if key.id not in done)
        return Rewrapped(self._to.name, changed, unchanged, dict(self._left))

    def _wanted(self, contents: Contents) -> list[ProtectionKey]:
        return [
            key
            for key in contents.keys
            if key.id not in self._left and not self._is_newest(key.stored)
        ]

    def _is_ready(self, key: ProtectionKey) -> bool:
        made = self._made.get(key.id)
        if made is not None and made[0].text == key.stored.text:
            return True
        return self._is_newest(key.stored)

    def _is_newest(self, stored: StoredKey) -> bool:
        found = rewriting.envelopes_in(stored)
        return len(found) == 1 and lies_under(found[0], self._to, self._newest)

    def _make(self, contents: Contents, key: ProtectionKey) -> None:
        stored, second = key.stored, contents.recoveries.get(key.id)
        try:
            root = opened_somehow(
                stored, self._envelopes, second.wrapped if second else None
            )
            secret = rewriting.secret_in(root, key.id)
        except KeyRingError as error:
            if getattr(error, "transient", False):
                raise
            self._left[key.id] = error.text
            return
        self._left.pop(key.id, None)
        wrapped = wrap_checked(self._to, secret, key.id)
        text = rewriting.with_envelope(root, key.id, wrapped)
        self._made[key.id] = stored, Element(stored.name, text)
