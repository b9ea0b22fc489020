"""
What operators do to a protection ring: the verbs, each decided purely and then committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.events import Severity
from kagimori.keys.protection import inventory, minting, verbs
from kagimori.keys.protection.choosing import first_choice
from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.live import LiveRing
from kagimori.keys.protection.loader import Decide, Loaded, RingLoader
from kagimori.keys.protection.outcomes import (
    Ended,
    GuardedKey,
    ProtectionKeyView,
    Rewrapped,
)
from kagimori.keys.protection.recovery import Doubling, undouble
from kagimori.keys.protection.rewrapping import Rewrapping
from kagimori.keys.wrapping import KeyWrapper

if TYPE_CHECKING:
    from kagimori.keys.protection.carrying import Cost


def _sleep(duration: timedelta) -> None:
    time.sleep(duration.total_seconds())


class RingVerbs:
    """
    The verbs of a `ProtectionRing`. Each changes the ring in its store in one commit, or not.

    All of them raise `RingReadOnlyError` where the ring was opened read-only, `StoreError` where
    the store refuses or does not answer, and `KeyWrapError` where a wrapper does. Reasons are
    kept in the ring's state.
    """

    _live: LiveRing
    _loader: RingLoader

    # --- turning ---------------------------------------------------------------------------

    def rotate(
        self,
        *,
        activates: datetime | None = None,
        immediate: bool = False,
        reason: str = "",
        replace: bool = False,
    ) -> ProtectionKeyView:
        """
        Add a key: a successor for later, or, where `immediate`, one that protects from now on.

        .NET nodes that share the ring see a new key up to a day later, so without a date the
        successor activates in three days. An immediate key is an emergency for them.

        Args:
            activates: when it takes over; aware.
            replace: take back the key that waits, instead of refusing.

        Raises:
            NextKeyWaitsError: a key waits already, and this one is neither immediate nor to
                replace it.
            NotPropagatedError: `activates` lies before every node can have the key.
            KeyStateError: it is too late to take the waiting key back.
            RingUnreadableError: a key of the ring cannot be read (unreadable is not absent).
        """
        decide = partial(
            verbs.rotate,
            terms=self._loader.options.terms,
            activates=None if activates is None else _aware(activates),
            immediate=immediate,
            replace=replace,
            reason=reason,
        )
        return self._heir(self._live.change(decide))

    def activate(
        self, key_id: str | None = None, *, emergency: bool = False, reason: str = ""
    ) -> ProtectionKeyView:
        """
        Let a waiting key take over now, the first one unless named; its term stays as long.

        Args:
            emergency: although not every node can have it yet: what it protects will be refused
                there until they look.

        Raises:
            NotFoundError: there is no such key.
            KeyStateError: it does not wait, or none does.
            NotPropagatedError: too early, and no emergency.
        """
        decide = partial(
            verbs.activate,
            terms=self._loader.options.terms,
            emergency=emergency,
            reason=reason,
        )
        return self._heir(self._live.change(first_choice(decide, key_id)))

    def cancel(self, key_id: str | None = None, *, reason: str = "") -> str:
        """
        Take a waiting key back, the first one unless named; return its id.

        Raises:
            NotFoundError: there is no such key.
            KeyStateError: it does not wait, none does, or it is about to take over.
        """
        decide = partial(verbs.cancel, terms=self._loader.options.terms, reason=reason)
        plan = self._live.change(first_choice(decide, key_id)).plan
        return next(iter(plan.reasons))

    # --- ending ----------------------------------------------------------------------------

    def revoke(self, key_id: str, reason: str = "") -> Ended:
        """
        Revoke a key for good: nothing that was made under it opens any more.

        Where it is the current one, the waiting key takes over in the same commit if every
        node can have it, else a key made now. Revoked already, nothing happens.

        Raises:
            NotFoundError: there is no such key.
        """
        return self._ended(
            partial(
                verbs.revoke,
                terms=self._loader.options.terms,
                key_id=key_id,
                reason=reason,
            )
        )

    def revoke_before(self, date: datetime, reason: str = "") -> Ended:
        """
        Revoke every key that was made strictly before a date; as `revoke` otherwise.

        Args:
            date: aware, and not ahead.

        Raises:
            KeyStateError: the date lies ahead.
        """
        return self._ended(
            partial(
                verbs.revoke_before,
                terms=self._loader.options.terms,
                date=_aware(date),
                reason=reason,
            )
        )

    def delete(self, key_id: str, *, force: bool = False, reason: str = "") -> Ended:
        """
        Take a key out of the ring for good; its reason stays in the ring's state.

        Args:
            force: although it is PREVIOUS, so that what it protected can never be read again,
                or although its element is unreadable.

        Raises:
            NotFoundError: there is no such key.
            KeyStateError: it protects, waits, or is PREVIOUS and this is no force.
        """
        return self._ended(
            partial(verbs.delete, key_id=key_id, force=force, reason=reason)
        )

    def compromise(
        self,
        key_id: str | None = None,
        reason: str = "compromised",
        *,
        wait: Callable[[timedelta], None] = _sleep,
    ) -> Ended:
        """
        Answer to a stolen key: revoke it, replace it by one made now, and see it through.

        Returns when every node of ours has had the time to see it: two probe intervals. .NET
        nodes learn of it up to a day later, or when they are started again.

        Args:
            key_id: which key; ``None`` stands for every key made until now, the waiting ones
                too.
            wait: lets the time pass.

        Raises:
            NotFoundError: there is no such key.
        """
        terms = self._loader.options.terms
        decide = partial(
            verbs.revoke, terms=terms, key_id=key_id, reason=reason, fresh=True
        )
        ended = self._ended(decide)
        wait(terms.nodes_see)
        return ended

    # --- wrapping --------------------------------------------------------------------------

    def rewrap(self, to: KeyWrapper | None = None) -> Rewrapped:
        """
        Wrap all keys anew, by another wrapper or the newest version of the ring's own.

        One commit, each envelope unwrapped again and compared before: readers find the old
        envelopes or the new ones. Nodes go on with what they have opened; before they start
        anew, name the new wrapper to them. From here on this ring wraps by it.

        Args:
            to: left out, the ring's own wrapper.

        Raises:
            KeyWrapError: a key cannot be opened at the moment, or `to` refuses: nothing was
                written. Keys that cannot be opened for good are left as they are, and named.
            InsecureConfigError: there is no wrapper, or clear keys would lie where others may
                write.
        """
        envelopes = self._loader.envelopes
        wrapper = minting.require_writer(
            self._loader.store,
            to or envelopes.wrapper,
            read_only=self._loader.options.read_only,
        )
        work = Rewrapping(envelopes, wrapper)
        before = self._live.contents
        # Vaults take their time; meanwhile the ring is looked at as ever.
        work.prepare(before)
        envelopes.read_too(wrapper)
        plan = self._live.change(work.decide).plan
        envelopes.adopt(wrapper)
        return work.outcome(before, plan)

    def add_recovery(self, recovery: KeyWrapper | None = None) -> int:
        """
        Give every key a second envelope, by a wrapper kept apart for the day of disaster.

        New keys of this ring get theirs from here on; other nodes need the wrapper too.

        Args:
            recovery: left out, the one that the ring was opened with.

        Returns:
            How many second envelopes were written.

        Raises:
            ConfigError: there is no such wrapper.
            InsecureConfigError: the wrapper leaves keys readable.
            KeyRingError: a key cannot be opened.
        """
        envelopes = self._loader.envelopes
        wrapper = recovery or envelopes.recovery
        if wrapper is None:
            raise ConfigError("No wrapper for disaster recovery is named.")
        if wrapper.is_plaintext:
            raise InsecureConfigError(
                "A second envelope that hides nothing helps thieves."
            )
        work = Doubling(envelopes, wrapper)
        work.prepare(self._live.contents)
        plan = self._live.change(work.decide).plan
        envelopes.recovery = wrapper
        return len(plan.add)

    def remove_recovery(self) -> int:
        """
        Take all second envelopes away, and give new keys none; return how many there were.
        """
        plan = self._live.change(undouble).plan
        self._loader.envelopes.recovery = None
        return len(plan.remove)

    def inventory(self) -> tuple[GuardedKey, ...]:
        """
        Say which wrapping-key version guards which key; asks the vault at most for its newest.
        """
        return inventory.inventory(
            self._live.contents, self._loader.envelopes, self._live.now()
        )

    # --- carrying --------------------------------------------------------------------------

    def export_key(
        self, key_id: str, passphrase: str, *, cost: Cost | None = None
    ) -> str:
        """
        Return one key as text that only the passphrase opens (`docs/ring-key-export.md`).

        Raises:
            NotFoundError: there is no such key.
            InsecureConfigError: the passphrase is weak.
            KeyRingError: the key cannot be opened.
        """
        from kagimori.keys.protection import carrying  # noqa: PLC0415 - as in `import_key`

        text = carrying.export_key(
            self._live.contents, self._loader.envelopes, key_id, passphrase, cost
        )
        self._emit("key.exported", Severity.WARNING, key=key_id, use="protection")
        return text

    def import_key(
        self, data: str, passphrase: str, *, emergency: bool = False, reason: str = ""
    ) -> ProtectionKeyView:
        """
        Add a key that `export_key` made to this ring, with its id and dates.

        Args:
            emergency: although it would protect before every node can have it.

        Raises:
            RingMalformedError: `data` is no exported key.
            KeyWrapError: the passphrase does not open it.
            KeyStateError: a revocation in the ring covers it.
            NotPropagatedError: it would protect too early, and this is no emergency.
        """
        # Argon2 takes a while to import, and few programs carry keys.
        from kagimori.keys.protection import carrying  # noqa: PLC0415

        carried = carrying.read_export(data, passphrase)
        wrapper = minting.require_writer(
            self._loader.store,
            self._loader.envelopes.wrapper,
            read_only=self._loader.options.read_only,
        )
        decide = partial(
            carrying.import_key,
            terms=self._loader.options.terms,
            carried=carried,
            wrapped=carrying.wrap_carried(
                carried, wrapper, self._loader.envelopes.recovery
            ),
            emergency=emergency,
            reason=reason,
        )
        return self._view(self._live.change(decide).contents, carried.id)

    # --- steps -----------------------------------------------------------------------------

    def _ended(self, decide: Decide) -> Ended:
        loaded = self._live.change(decide)
        heir = loaded.added or loaded.plan.heir
        return Ended(
            loaded.plan.cuts,
            self._view(loaded.contents, heir) if heir else None,
            loaded.contents.state.generation,
        )

    def _heir(self, loaded: Loaded) -> ProtectionKeyView:
        return self._view(loaded.contents, loaded.added or loaded.plan.heir or "")

    def _view(self, contents: Contents, key_id: str) -> ProtectionKeyView:
        raise NotImplementedError

    def _emit(self, name: str, severity: Severity, **fields: str) -> None:
        raise NotImplementedError


def _aware(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ConfigError("An instant needs a time zone.")
    return instant
