"""
What is told of refresh-token families (requirements B10).

Names are stable. No token, hash or seal ever stands in an event: the family and the generation
say which one it was.
"""

from __future__ import annotations

from kagimori.events import Event, Severity
from kagimori.tokens.family import EndReason, RefreshTokenFamily
from kagimori.tokens.redemption import Redeemed, Redemption

NAMES = {
    Redemption.ROTATED: "refresh.rotated",
    Redemption.KEPT: "refresh.kept",
    Redemption.REPLAYED: "refresh.replayed",
    Redemption.THROTTLED: "refresh.throttled",
    Redemption.STALE: "refresh.stale",
    Redemption.REUSE: "refresh.reuse_detected",
    Redemption.EXPIRED_IDLE: "refresh.expired_idle",
    Redemption.EXPIRED_ABSOLUTE: "refresh.expired_absolute",
    Redemption.REVOKED: "refresh.revoked",
    Redemption.FOREIGN: "refresh.foreign_client",
    Redemption.FORGED: "refresh.forged",
    Redemption.AHEAD: "refresh.ahead",
    Redemption.SCOPE_WIDENED: "refresh.scope_widened",
    Redemption.TARGET_WIDENED: "refresh.target_widened",
}

_SEVERITIES = {
    Redemption.THROTTLED: Severity.WARNING,
    Redemption.STALE: Severity.WARNING,
    Redemption.FORGED: Severity.WARNING,
    Redemption.FOREIGN: Severity.ALARM,
    Redemption.REUSE: Severity.ALARM,
    # The database went back in time: only a person can put that right.
    Redemption.AHEAD: Severity.ALARM,
}


def of_redemption(
    tenant: str, client: str, generation: int, verdict: Redeemed
) -> list[Event]:
    """
    Return the events of one redemption, its outcome first.

    Args:
        client: who presented the token.
        generation: of the presented token; 0 where it could not be read.
    """
    family = verdict.family
    fields: dict[str, str | int | float | bool | None] = {
        "tenant": tenant,
        "client": client,
        "outcome": verdict.outcome.value,
        "family": None if family is None else family.id,
        "generation": generation,
        "user": None if family is None else family.user,
        "reason": verdict.reason,
    }
    outcome = verdict.outcome
    severity = _SEVERITIES.get(outcome, Severity.INFO)
    events = [Event(NAMES[outcome], fields, severity)]
    if verdict.is_divergent:
        events.append(Event("refresh.replay_divergent", fields, Severity.WARNING))
    if verdict.lost_tag_key and outcome.is_success:
        # Old tokens of this family can no longer be told from forged ones.
        events.append(Event("refresh.tag_key_lost", fields, Severity.ALARM))
    return events


def revoked(family: RefreshTokenFamily, reason: EndReason) -> Event:
    """
    Return the event of a revocation that no redemption brought about.
    """
    return Event("family.revoked", _fields(family) | {"reason": reason.value})


def evicted(family: RefreshTokenFamily) -> Event:
    """
    Return the event of a family that made way for a newer one.
    """
    return Event("family.evicted", _fields(family))


def _fields(
    family: RefreshTokenFamily,
) -> dict[str, str | int | float | bool | None]:
    return {
        "tenant": family.tenant,
        "client": family.client,
        "user": family.user,
        "family": family.id,
        "generation": family.generation,
    }
