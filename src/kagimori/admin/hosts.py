"""
Which tenant a host belongs to: a document of its own for each host.

Rules of this module:

1. A commit writes in one tenant only, so hosts lie together in `default`. A host is claimed
   there before its tenant is made, and let go when that fails or the tenant is deleted.
2. A claim whose maker died is taken over once no creation can still be on its way.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

import msgspec

from kagimori.crypto.digests import random_id
from kagimori.errors import RefusedError, StoreError
from kagimori.oauth.tenant import DEFAULT_TENANT, TENANTS
from kagimori.storage.store import (
    ABSENT,
    Collection,
    Decision,
    Loaded,
    Store,
    Versioned,
    transact,
)

ABANDONED_AFTER = timedelta(minutes=10)
"""When a claim without a tenant is one of a creation that died: one takes seconds."""

ATTEMPTS = 50


class HostClaim(msgspec.Struct, frozen=True, kw_only=True):
    """
    Says whose a host is.

    Attributes:
        tenant: the tenant that answers on it, or is about to.
        since: when it was claimed.
        by: names the one claiming, so that nobody lets go what another has claimed.
    """

    tenant: str
    since: datetime
    by: str


HOSTS: Collection[HostClaim] = Collection("host", HostClaim)


async def claim_host(store: Store, tenant: str, host: str) -> str:
    """
    Claim a host for a tenant that is about to be made; return what lets it go.

    Raises:
        RefusedError: it is another's, or is being claimed at this moment.
        StoreError: as the store raises.
    """
    by = random_id()
    seen = await HOSTS.get(store, DEFAULT_TENANT, host)
    is_used = seen is not None and await _answers(store, seen.value.tenant, host)

    def rule(loaded: Loaded) -> Decision[None]:
        found = HOSTS.maybe(loaded.documents[0])
        if found is not None and (
            is_used
            or not _is_same(found, seen)
            or not _may_take(found.value, tenant, loaded.now)
        ):
            raise RefusedError(f"Another tenant answers on the host {host}.")
        claim = HostClaim(tenant=tenant, since=loaded.now, by=by)
        version = found.version if found else ABSENT
        return Decision(None, (HOSTS.put(host, claim, version),))

    await transact(store, DEFAULT_TENANT, [HOSTS.key(host)], rule, attempts=ATTEMPTS)
    return by


async def release_host(
    store: Store, tenant: str, host: str, by: str | None = None
) -> None:
    """
    Let go of a host, unless the tenant answers on it. A failure leaves a claim that ages.

    Args:
        by: only if it is this claim; left out: whichever claim of the tenant's.
    """

    def rule(loaded: Loaded) -> Decision[None]:
        found = HOSTS.maybe(loaded.documents[0])
        if found is None or found.value.tenant != tenant:
            return Decision(None)
        if by is not None and found.value.by != by:
            return Decision(None)
        return Decision(None, (HOSTS.delete(host, found.version),))

    with contextlib.suppress(StoreError):
        if not await _answers(store, tenant, host):
            await transact(
                store, DEFAULT_TENANT, [HOSTS.key(host)], rule, attempts=ATTEMPTS
            )


async def _answers(store: Store, tenant: str, host: str) -> bool:
    found = await TENANTS.get(store, tenant, tenant)
    return found is not None and found.value.host == host


def _is_same(found: Versioned[HostClaim], seen: Versioned[HostClaim] | None) -> bool:
    return seen is not None and found.version == seen.version


def _may_take(claim: HostClaim, tenant: str, now: datetime) -> bool:
    # Whose creation failed may try again at once.
    return claim.tenant == tenant or claim.since + ABANDONED_AFTER <= now
