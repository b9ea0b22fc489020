"""
A ring of keys, and the verbs that change it.

Rules of this module:

1. A verb is a pure function of (ring, request, now). It returns a new ring and what became
   of the keys, or raises; it does no I/O and draws no randomness. Keys are made outside.
2. Times are written by verbs and by nothing else. A predecessor's `retires` is written in
   the same step as its successor's `activates`, so that there is neither a gap nor a
   second current key; cancelling the successor takes it back.
3. Nothing is revived: a REVOKED, RETIRED or PREVIOUS key never signs again.
4. A key leaves the ring only as a NEXT that never signed, by force, or when nothing that it
   made can be alive.
5. A key that activates before verifiers can have seen it is an emergency, said by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Self

import msgspec

from kagimori.errors import KeyStateError
from kagimori.keys import refusals
from kagimori.keys.lineup import K, RingKey
from kagimori.keys.outcomes import LiveTokens, Preview, RingChange
from kagimori.keys.policy import CLOCK_SKEW, RotationPolicy
from kagimori.keys.schedule import propagated_at
from kagimori.keys.succession import Heritage, Succession, born, moved, put_off
from kagimori.keys.timeline import KeyState, KeyUse

__all__ = ["KeyRing", "LiveTokens", "Preview", "RingChange", "RingKey"]


class KeyRing(Succession[K]):
    """
    A `Lineup` with the verbs that change it.
    """

    __slots__ = ()

    @classmethod
    def first(
        cls, use: KeyUse, keys: Sequence[K], *, now: datetime, policy: RotationPolicy
    ) -> Self:
        """
        Return a new ring whose keys are all current; the first one's algorithm is default.

        They are dated slightly into the past, so that a node whose clock is behind agrees.

        Raises:
            KeyStateError: two keys of one line, or none at all.
        """
        lines = {key.algorithm if use is KeyUse.SIGNING else "" for key in keys}
        if not keys or len(lines) != len(keys):
            raise KeyStateError("A new ring takes one key of each algorithm.")
        at = now - CLOCK_SKEW
        return cls(
            use,
            tuple(key.with_timeline(born(key, now, at, policy)) for key in keys),
            generation=1,
            default_algorithm=keys[0].algorithm,
            changed=now,
        )

    # --- rotate, activate, cancel ------------------------------------------------------

    def rotate(
        self,
        new_key: K,
        *,
        now: datetime,
        policy: RotationPolicy,
        activates: datetime | None = None,
        make_default: bool = False,
        end_old_default: bool = False,
        replace_waiting: bool = False,
        emergency: bool = False,
    ) -> RingChange[K]:
        """
        Add a key that takes over its line: NEXT until `activates`.

        Args:
            new_key: a ready key; its timeline is written here, but for `created`.
            activates: when it takes over; left out: after the propagation.
            make_default: let its algorithm be the default from its activation on.
            end_old_default: let the line of the old default end at that instant.
            replace_waiting: drop a NEXT of this line that waits already.
            emergency: allow `activates` before verifiers can have seen the key. The key
                then takes the place of the NEXT that it drops, and of the current one.

        Raises:
            NextKeyWaitsError: a NEXT of this line waits and is not to be replaced.
            NotPropagatedError: `activates` is too early and this is no emergency.
            KeyStateError: the key is in the ring already, or its line is about to end.
        """
        ring = self._entered(now)
        if ring.get(new_key.id) is not None:
            raise refusals.known_already(new_key)
        heritage = Heritage(make_default, end_old_default)
        dropped: tuple[str, ...] = ()
        waiting = ring.next_(new_key.algorithm, now)
        if waiting is not None:
            if not replace_waiting:
                raise refusals.next_waits(waiting)
            if emergency:
                heritage = ring._heritage(waiting, heritage)
            ring, dropped = ring._without_next(waiting), (waiting.id,)
        safe = now + policy.propagation
        at = safe if activates is None else activates
        if at < now or (at < safe and not emergency):
            raise refusals.too_early(new_key.id, safe)
        key = new_key.with_timeline(born(new_key, now, at, policy))
        ring, key, followed = ring._take_over(key, now, heritage, takes_place=emergency)
        return RingChange("rotate", ring, key, followed, dropped)

    def activate(
        self,
        id_: str,
        *,
        now: datetime,
        at: datetime,
        policy: RotationPolicy,
        make_default: bool = False,
        end_old_default: bool = False,
        emergency: bool = False,
    ) -> RingChange[K]:
        """
        Let a NEXT take over earlier than its date; a later `at` leaves the date as it is.

        Args:
            at: the new instant, not before `now`.
            emergency: allow it before verifiers can have seen the key.

        Raises:
            NotFoundError: there is no such key.
            KeyStateError: the key is not NEXT.
            NotPropagatedError: too early; the text names the safe moment.
        """
        ring = self._entered(now)
        key = ring._require(id_, now, "activate", KeyState.NEXT)
        safe = propagated_at(key.timeline, policy)
        if at < now or (at < safe and not emergency):
            raise refusals.too_early(id_, safe)
        heritage = ring._heritage(key, Heritage(make_default, end_old_default))
        early = moved(key, min(at, key.timeline.activates))
        ring, key, followed = ring._without_next(key)._take_over(
            early, now, heritage, takes_place=emergency
        )
        return RingChange("activate", ring, key, followed)

    def cancel(
        self, id_: str, *, now: datetime, policy: RotationPolicy
    ) -> RingChange[K]:
        """
        Take a NEXT back: its predecessor goes on as if it had never been.

        Where the predecessor's `due` is so near that the schedule would publish another
        key at once, it is put off by one period.

        Raises:
            NotFoundError: there is no such key.
            KeyStateError: the key is not NEXT, or so near its date that a node whose clock
                is ahead may use it already.
        """
        ring = self._entered(now)
        key = ring._require(id_, now, "cancel", KeyState.NEXT)
        # A signing key cannot have signed before its date on any node, since the ledger
        # grants a reservation by the store's time only. Whoever commits this after that date
        # has to rest on the ledger of the same read. Other uses have no ledger.
        near = key.timeline.activates - CLOCK_SKEW <= now
        if near and self.use is not KeyUse.SIGNING:
            raise refusals.too_late_to_cancel(key)
        freed = ring._predecessors(id_)
        ring = ring._without_next(key)
        ring = ring._with(
            now,
            tuple(put_off(k, now, policy) if k.id in freed else k for k in ring.keys),
        )
        return RingChange("cancel", ring, key, ring._select(freed), (id_,))

    def make_default(
        self, algorithm: str, *, now: datetime, end_old_default: bool = False
    ) -> RingChange[K]:
        """
        Let an algorithm that has a current key be the default, at once.

        Raises:
            KeyStateError: it has no current key, it is the default, or another change of
                the default waits.
        """
        ring = self._entered(now)
        key = ring.current(now, algorithm)
        if key is None or ring.default_algorithm == algorithm:
            raise refusals.cannot_be_default(algorithm, is_default=key is not None)
        if ring.pending_default is not None:
            raise refusals.default_waits(ring.pending_default)
        ended = ring._end_default(key, now, now) if end_old_default else ()
        ring = replace(ring, default_algorithm=algorithm)
        ring = ring._with(now, ring._updated(ended))
        return RingChange("make_default", ring, key, ended)

    # --- ending keys -------------------------------------------------------------------

    def revoke(
        self,
        id_: str,
        *,
        now: datetime,
        policy: RotationPolicy,
        replacement: K | None = None,
    ) -> RingChange[K]:
        """
        End a key at once: what it made fails from now on, and its material is destroyed.

        A current key is replaced in the same step: by a propagated NEXT where there is
        one, else by `replacement`, and an unpropagated NEXT is dropped. The replacement is
        dated slightly into the past, so that no node goes on with the revoked key.

        Raises:
            NotFoundError: there is no such key.
            KeyStateError: it is revoked already, or current and nothing can replace it.
        """
        ring = self._entered(now)
        key = ring._require(
            id_,
            now,
            "revoke",
            KeyState.NEXT,
            KeyState.CURRENT,
            KeyState.PREVIOUS,
            KeyState.RETIRED,
        )
        state = ring.state(key, now)
        if state is KeyState.NEXT:
            freed = ring._predecessors(id_)
            ring = ring._without_next(key, keep=True)
            return ring._revoked(id_, now, freed)
        if state is not KeyState.CURRENT:
            return ring._revoked(id_, now, ())
        waiting = ring.next_(key.algorithm, now)
        heritage = Heritage()
        dropped: tuple[str, ...] = ()
        at = max(now - CLOCK_SKEW, key.timeline.activates)
        if waiting is not None and propagated_at(waiting.timeline, policy) <= now:
            heritage = ring._heritage(waiting, heritage)
            ring, heir = ring._without_next(waiting), moved(waiting, at)
        elif replacement is not None:
            if waiting is not None:
                ring, dropped = ring._without_next(waiting), (waiting.id,)
            heir = replacement.with_timeline(born(replacement, now, at, policy))
        else:
            raise refusals.needs_replacement(key)
        ring, heir, _ = ring._take_over(heir, now, heritage, takes_place=True)
        ring = replace(ring, generation=self.generation)
        return ring._revoked(id_, now, (heir.id,), dropped)

    def delete(
        self, id_: str, *, now: datetime, live: LiveTokens, force: bool = False
    ) -> RingChange[K]:
        """
        Take a PREVIOUS or RETIRED key out of the ring for good.

        Args:
            live: what is known of its tokens. While some may be alive, `force` is needed.

        Raises:
            NotFoundError: there is no such key.
            KeyStateError: it is current, waits or is revoked (K12), or tokens under it are
                alive; the text names their number and the earliest safe moment.
        """
        ring = self._entered(now)
        key = ring._require(id_, now, "delete", KeyState.PREVIOUS, KeyState.RETIRED)
        safe = ring._safe_to_end(key, now, live)
        if not force and (safe is None or safe > now):
            raise refusals.still_needed(key, live.count, safe)
        keys = tuple(other for other in ring.keys if other.id != id_)
        return RingChange("delete", ring._with(now, keys), key, (), (id_,))

    def settle(
        self,
        *,
        now: datetime,
        policy: RotationPolicy,
        last_expiry: Mapping[str, datetime | None] | None,
    ) -> KeyRing[K] | None:
        """
        Write `expires` on keys that stopped signing; ``None`` if there are none.

        Args:
            last_expiry: per key id, when its last token is over everywhere. ``None`` for a
                key means that its ledger is not whole; a key left out has signed nothing.
                ``None`` for all means that nobody counts.
        """
        if self.use is KeyUse.PROTECTION:
            return None
        settled = []
        for key in self.keys:
            times = key.timeline
            if times.expires is None and times.retires and times.retires <= now:
                end = times.retires + policy.longest_life + policy.tolerance
                if last_expiry is not None:
                    end = last_expiry.get(key.id, times.retires) or end
                times = msgspec.structs.replace(times, expires=max(times.retires, end))
                settled.append(key.with_timeline(times))
        if not settled:
            return None
        ring = self._entered(now)
        return ring._with(now, ring._updated(settled))

    def prune(
        self, *, now: datetime, policy: RotationPolicy
    ) -> tuple[KeyRing[K], tuple[K, ...]] | None:
        """
        Drop keys that have been RETIRED or REVOKED for longer than the policy keeps them.

        Returns:
            The ring and the dropped keys, or ``None`` if there are none.
        """
        if self.use is KeyUse.PROTECTION:
            return None
        gone = tuple(key for key in self.keys if self._is_over(key, now, policy))
        if not gone:
            return None
        ring = self._entered(now)
        kept = tuple(key for key in ring.keys if key not in gone)
        return ring._with(now, kept), gone

    def preview(self, id_: str, *, now: datetime, live: LiveTokens) -> Preview[K]:
        """
        Tell what ending a key now would cut.

        Raises:
            NotFoundError: there is no such key.
        """
        key = self._require(id_, now, "preview", *KeyState)
        return Preview(
            key, self.state(key, now), live, self._safe_to_end(key, now, live)
        )

    # --- within ------------------------------------------------------------------------

    def _revoked(
        self,
        id_: str,
        now: datetime,
        others: tuple[str, ...],
        destroyed: tuple[str, ...] = (),
    ) -> RingChange[K]:
        keys = tuple(
            key.with_timeline(msgspec.structs.replace(key.timeline, revoked=now))
            if key.id == id_
            else key
            for key in self.keys
        )
        ring = self._with(now, keys)
        (key,) = ring._select((id_,))
        return RingChange("revoke", ring, key, ring._select(others), (id_, *destroyed))

    def _safe_to_end(self, key: K, now: datetime, live: LiveTokens) -> datetime | None:
        state = self.state(key, now)
        if state in (KeyState.RETIRED, KeyState.REVOKED, KeyState.NEXT):
            return now
        if state is KeyState.CURRENT:
            return None
        times = key.timeline
        if times.expires is not None or live.count is None or times.retires is None:
            return times.expires
        return max(times.retires, live.until or times.retires)

    def _is_over(self, key: K, now: datetime, policy: RotationPolicy) -> bool:
        state = self.state(key, now)
        since = {
            KeyState.RETIRED: key.timeline.expires,
            KeyState.REVOKED: key.timeline.revoked,
        }.get(state)
        return since is not None and since + policy.keep_retired <= now
