"""
What ``keys rotate`` means with each combination of its flags, as one pure decision.
"""

from __future__ import annotations

from dataclasses import dataclass

from kagimori.crypto.algorithms import algorithm as known_algorithm
from kagimori.errors import RefusedError
from kagimori.keys import refusals
from kagimori.keys.changing import StoredRing
from kagimori.keys.documents import KeyDocument
from kagimori.keys.policy import SWITCH_AHEAD
from kagimori.keys.ring import RingChange
from kagimori.keys.schedule import propagated_at
from kagimori.keys.timeline import KeyUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """
    One request to rotate.

    Attributes:
        use: signing or cookie.
        algorithm: whose key turns.
        default: the algorithm becomes the default when the key activates.
        at_once: the switch is to happen now.
        emergency: even before verifiers can have seen the key.
        replace: a NEXT that waits is dropped for another.
    """

    use: KeyUse
    algorithm: str
    default: bool = False
    at_once: bool = False
    emergency: bool = False
    replace: bool = False

    def needs_key(self, stored: StoredRing) -> bool:
        """
        Say whether a new key has to be made; refuse early what would be refused anyway.

        Raises:
            NextKeyWaitsError: a NEXT waits, and neither flag says what to do with it.
        """
        if self.at_once:
            return self.emergency
        waiting = stored.ring.next_(self.algorithm, stored.now)
        if waiting is not None and not self.replace:
            raise refusals.next_waits(waiting)
        return True

    def decide(
        self, stored: StoredRing, new: KeyDocument | None, *, end_old: bool
    ) -> RingChange[KeyDocument]:
        """
        Return what happens to the ring.

        Args:
            new: a ready key, where `needs_key` asked for one.
            end_old: let the line of the old default end where the default changes.

        Raises:
            KagimoriError: as the ring's verbs.
        """
        ring, now, policy = stored.ring, stored.now, stored.document.policy
        waiting = ring.next_(self.algorithm, now)
        soon = now + SWITCH_AHEAD
        if (
            self.at_once
            and waiting is not None
            and not self.replace
            and not (self.emergency and propagated_at(waiting.timeline, policy) > soon)
        ):
            return ring.activate(
                waiting.id,
                now=now,
                at=soon,
                policy=policy,
                make_default=self.default,
                end_old_default=end_old,
            )
        if new is None:
            raise refusals.nothing_propagated(self.algorithm, now + policy.propagation)
        return ring.rotate(
            new,
            now=now,
            policy=policy,
            activates=soon if self.at_once else None,
            make_default=self.default,
            end_old_default=end_old,
            replace_waiting=self.replace or self.at_once,
            emergency=self.emergency,
        )


def check_request(
    use: KeyUse,
    algorithm: str | None,
    *,
    default: bool,
    at_once: bool,
    emergency: bool,
) -> None:
    """
    Refuse a request that contradicts itself.

    Raises:
        RefusedError: it does, or the use is not turned here.
        UnsupportedAlgorithmError: the algorithm is not offered.
    """
    server_use(use)
    if emergency and not at_once:
        raise RefusedError(
            "--emergency says how to switch at once, so it needs --now.",
            hint="Say --now --emergency.",
        )
    if use is KeyUse.COOKIE and (algorithm is not None or default):
        raise RefusedError("Cookie keys have one algorithm, which is not chosen.")
    if algorithm is not None:
        known_algorithm(algorithm)


def server_use(use: KeyUse) -> KeyUse:
    """
    Return a use whose rings lie in the server's database.

    Raises:
        RefusedError: protection keys turn in their own ring.
    """
    if use is KeyUse.PROTECTION:
        raise RefusedError(
            "Protection keys belong to no tenant; they turn by their own schedule.",
            hint="Name signing or cookie.",
        )
    return use
