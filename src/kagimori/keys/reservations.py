"""
Room in the ledger: granted before a token leaves, counted after.

Rules of this module:

1. The key is chosen anew by the store's time for each reservation. So a node whose clock is
   ahead cannot sign with a key before its date, and one behind not with a key that is over.
2. A reservation is committed on condition of the ring's version. Whoever holds an older ring
   loses, reads, and decides again.
3. Requests of one tenant wait for one reservation, not each for its own; where it fails, it
   fails for all that waited.
4. A ring that nobody could confirm for a while signs nothing, however much room there is.
"""

from __future__ import annotations

import asyncio
import random
from datetime import datetime

from kagimori.errors import (
    ConflictError,
    KagimoriError,
    SigningUnavailableError,
    StoreError,
    UnsupportedAlgorithmError,
)
from kagimori.keys.changing import no_ring
from kagimori.keys.documents import LEDGERS, RINGS
from kagimori.keys.holdings import RING_KEYS, HeldTenant, Holdings
from kagimori.keys.key import SigningKey
from kagimori.keys.ledger import LedgerDocument
from kagimori.keys.timeline import KeyUse
from kagimori.storage.store import (
    ABSENT,
    Check,
    Decision,
    Loaded,
    transact,
)

ATTEMPTS = 25
"""How often a reservation is tried: rings and ledgers of a herd meet, then part again."""

_USE = KeyUse.SIGNING.value
_LEDGER_KEY = LEDGERS.key(_USE)


async def reserved_key(
    holdings: Holdings, held: HeldTenant, algorithm: str | None, until: datetime
) -> SigningKey:
    """
    Return the key that signs now, once the ledger has room for a token until then.

    Raises:
        NotFoundError: the tenant is gone.
        UnsupportedAlgorithmError: the tenant has no current key of the algorithm.
        SigningUnavailableError: the key cannot be read, or the ledger cannot be written.
    """
    unwritten = held.unwritten
    async with held.reserving:
        keys, now = held.manager.ring, holdings.clock.now()
        if keys is not None and not held.manager.is_stale(now):
            # Whoever was before may have made room for us too.
            key = keys.view(now).signers.get(algorithm)
            if key is not None and key.can_sign and held.book.take(key.id, until):
                return key
        if held.unwritten != unwritten:
            # It failed while we waited. Each trying anew would wait for the store in turn.
            raise _unavailable("another request waited for it just now")
        try:
            key = await _reserve(holdings, held, algorithm, until)
        except StoreError as exc:
            raise _unavailable(f"{exc.code}: {exc.text}", exc.hint) from exc
        held.book.take(key.id, until)
        return key


def _unavailable(detail: str, hint: str = "") -> SigningUnavailableError:
    return SigningUnavailableError(
        "The ledger of signing keys cannot be written, so nothing is signed.",
        hint=hint,
        detail=detail,
    )


async def reserve_ahead(holdings: Holdings, held: HeldTenant) -> None:
    """
    Make room for busy keys before requests have to wait for it.

    Raises:
        StoreError: the store does not answer; requests will ask again themselves.
    """
    for kid, until in held.book.running_short():
        keys = held.manager.ring
        key = keys.signing.ring.get(kid) if keys is not None else None
        if keys is None or key is None:
            continue
        signer = keys.view(holdings.clock.now()).signers.get(key.algorithm)
        if signer is None or signer.id != kid:
            # It stopped signing; its successor asks for itself when it is used.
            continue
        async with held.reserving:
            try:
                await _reserve(holdings, held, key.algorithm, until)
            except (SigningUnavailableError, UnsupportedAlgorithmError):
                # There is nothing to prepare; a request will say why.
                continue


async def flush(holdings: Holdings, held: HeldTenant) -> None:
    """
    Write what has been counted; keep it for the next time where that fails.

    Raises:
        StoreError: the store does not answer, or others were faster each time.
    """
    counts = held.book.drain()
    if not counts:
        return

    def rule(loaded: Loaded) -> Decision[None]:
        ledger = LEDGERS.maybe(loaded.documents[0])
        if ledger is None:
            return Decision(None)
        new = ledger.value.counted(counts, loaded.now)
        return Decision(None, (LEDGERS.put(_USE, new, ledger.version),))

    try:
        await transact(holdings.store, held.tenant, [_LEDGER_KEY], rule)
    except StoreError:
        held.book.refill(counts)
        raise


async def _reserve(
    holdings: Holdings, held: HeldTenant, algorithm: str | None, until: datetime
) -> SigningKey:
    try:
        return await _try_to_reserve(holdings, held, algorithm, until)
    except StoreError:
        held.unwritten += 1
        raise


async def _try_to_reserve(
    holdings: Holdings, held: HeldTenant, algorithm: str | None, until: datetime
) -> SigningKey:
    for attempt in range(ATTEMPTS):
        serving = held.manager.ring
        loaded = await holdings.store.load_many(held.tenant, [*RING_KEYS, _LEDGER_KEY])
        ring = loaded.documents[0]
        if ring is None:
            await holdings.load(held.tenant)
            raise no_ring(held.tenant)
        await holdings.take(held, loaded.documents[:2], serving)
        live = held.keys.signing
        if live.version != ring.version:
            error = held.manager.error
            if error is None:
                # A later one serves already, which another read brought meanwhile.
                continue
            raise SigningUnavailableError(
                f"The signing ring of the tenant {held.tenant} has changed and cannot be "
                "read, so nothing more is signed.",
                hint="`kagimori doctor` says why.",
                detail=str(error) if isinstance(error, KagimoriError) else "",
            )
        key = signing_key_at(held, algorithm, loaded.now)
        ledger = LEDGERS.maybe(loaded.documents[2])
        value = ledger.value if ledger else LedgerDocument(since=loaded.now)
        wanted = value.reserved(key.id, until, live.policy.tolerance)
        if wanted != value:
            changes = (
                Check(RINGS.kind, _USE, live.version),
                LEDGERS.put(_USE, wanted, ledger.version if ledger else ABSENT),
            )
            try:
                await holdings.store.commit(held.tenant, changes)
            except ConflictError:
                most = 0.002 * (1 << min(attempt, 4))
                await asyncio.sleep(random.uniform(0, most))  # noqa: S311 - jitter
                continue
        # Else another process has made this room, and the ring read with it is ours.
        held.book.reserved(key.id, until)
        return key
    held.unwritten += 1
    raise SigningUnavailableError(
        "Too many servers wrote the ledger at once.", hint="Try again in a moment."
    )


def signing_key_at(
    held: HeldTenant, algorithm: str | None, now: datetime
) -> SigningKey:
    """
    Return the key that signs at `now`.

    Raises:
        UnsupportedAlgorithmError: the tenant has no current key of the algorithm.
        SigningUnavailableError: its private half cannot be read.
    """
    keys = held.keys
    key = keys.view(now).signers.get(algorithm)
    if key is None:
        name = algorithm or "default"
        raise UnsupportedAlgorithmError(
            f"The tenant {held.tenant} has no current {name} key.",
            hint="`kagimori keys rotate signing --algorithm` makes one.",
        )
    if not key.can_sign:
        problem = keys.signing.unreadable.get(key.id)
        raise SigningUnavailableError(
            f"The signing key {key.id} cannot be read.",
            hint=problem.hint if problem else "",
            detail=problem.text if problem else "",
            kid=key.id,
        )
    return key
