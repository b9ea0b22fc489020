"""
From stored rings to live ones: read, open what is needed, keep what is open already.

Rules of this module:

1. A private half is opened only for a key that may still have to make something, and only
   once: material never changes under one kid.
2. One that cannot be opened costs that key alone. It is reported, and asked for again later.
3. A ring that is older than the one that serves is refused: a database was restored under us
   (attack K7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from kagimori.errors import (
    JoseError,
    KagimoriError,
    RingMalformedError,
    RingUnreadableError,
)
from kagimori.keys.documents import KeyDocument, RingDocument
from kagimori.keys.key import CookieKey, SigningKey
from kagimori.keys.lineup import RingKey
from kagimori.keys.live import LiveRing, TenantKeys
from kagimori.keys.material import (
    ProtectorRoot,
    open_secret,
    open_signing_key,
    public_half,
)
from kagimori.keys.policy import CLOCK_SKEW
from kagimori.keys.ring import KeyRing
from kagimori.keys.timeline import KeyState, KeyUse
from kagimori.storage.store import Versioned

L = TypeVar("L", bound=RingKey)


async def live_keys(
    root: ProtectorRoot,
    signing: Versioned[RingDocument],
    cookie: Versioned[RingDocument] | None,
    before: TenantKeys | None,
    now: datetime,
) -> TenantKeys:
    """
    Return a tenant's rings ready to serve.

    Args:
        root: what opens private halves; asked in a thread.
        signing: the stored signing ring.
        cookie: the stored cookie ring, where there is one.
        before: what serves so far; what it has open is taken over.
        now: for which keys a private half is needed.

    Raises:
        RingMalformedError: a public half cannot be read.
        RingUnreadableError: the stored ring is older than the one that serves.
    """
    tenant = signing.value.tenant

    def public(key: KeyDocument) -> SigningKey:
        try:
            half = public_half(key)
        except JoseError as exc:
            raise RingMalformedError(
                f"The public half of the signing key {key.id} cannot be read.",
                hint="Restore the database from a backup.",
                detail=exc.text,
                kid=key.id,
            ) from None
        return SigningKey(key.id, key.algorithm, key.timeline, half)

    def private(key: KeyDocument) -> SigningKey:
        whole = open_signing_key(root, tenant, key)
        return SigningKey(
            key.id, key.algorithm, key.timeline, public(key).public, whole
        )

    def closed(key: KeyDocument) -> CookieKey:
        return CookieKey(key.id, key.timeline)

    def opened(key: KeyDocument) -> CookieKey:
        secret = open_secret(root, tenant, KeyUse.COOKIE, key)
        return CookieKey(key.id, key.timeline, secret)

    def read() -> TenantKeys:
        return TenantKeys(
            _live(signing, before.signing if before else None, now, public, private),
            None
            if cookie is None
            else _live(cookie, before.cookie if before else None, now, closed, opened),
        )

    return await asyncio.to_thread(read)


def _live(
    stored: Versioned[RingDocument],
    before: LiveRing[L] | None,
    now: datetime,
    closed: Callable[[KeyDocument], L],
    opened: Callable[[KeyDocument], L],
) -> LiveRing[L]:
    document = stored.value
    ring = document.ring()
    known = {key.id: key for key in before.ring} if before is not None else {}
    if before is not None:
        _check_not_restored(document, before)
    keys: list[L] = []
    unreadable: dict[str, KagimoriError] = {}
    for key in ring:
        held = known.get(key.id)
        needed = _is_needed(ring, key, now)
        if held is not None and (_is_open(held) or not needed):
            keys.append(held.with_timeline(key.timeline))
            continue
        try:
            keys.append(opened(key) if needed else closed(key))
        except RingMalformedError:
            raise
        except RingUnreadableError as exc:
            unreadable[key.id] = exc
            keys.append(closed(key))
    live: KeyRing[L] = KeyRing(
        ring.use,
        tuple(keys),
        ring.generation,
        ring.default_algorithm,
        ring.pending_default,
        ring.changed,
    )
    under = {key.id: key.under for key in document.keys if key.under}
    return LiveRing(stored.version, live, document.policy, unreadable, under)


def _check_not_restored(document: RingDocument, before: LiveRing[L]) -> None:
    # A tenant that was deleted and made again begins anew, with other keys.
    shared = any(before.ring.get(key.id) is not None for key in document.keys)
    if shared and document.generation < before.ring.generation:
        raise RingUnreadableError(
            f"The {document.use.value} ring of the tenant {document.tenant} went back from "
            f"generation {before.ring.generation} to {document.generation}: an older "
            "database was put in place.",
            hint="Stop the server before restoring a backup; `kagimori doctor` says more.",
        )


def _is_needed(ring: KeyRing[KeyDocument], key: KeyDocument, now: datetime) -> bool:
    if key.private is None:
        return False
    # A node whose clock is behind signs with a key a little longer.
    state = ring.state(key, now - CLOCK_SKEW)
    if ring.use is KeyUse.COOKIE:
        return state.verifies
    return state in (KeyState.NEXT, KeyState.CURRENT)


def _is_open(key: RingKey) -> bool:
    if isinstance(key, SigningKey):
        return key.can_sign
    return isinstance(key, CookieKey) and key.is_readable
