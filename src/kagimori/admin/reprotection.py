"""
What a server's data has under which protection key, and moving it to the current one.

Servers move their rings by themselves, and a family's tag key with its next use; here is what
shows how far that has come, finishes it, and makes a key dispensable before it is ended.

Rules of this module:

1. A protection key is not deleted while one value names it, nor while something that might
   name it cannot be read.
2. Before a key is revoked, what it guards is moved, and the signing and cookie keys that lay
   under it are replaced: whoever stole it may have read them. So revoking never makes the
   server unreadable.
3. Values under a key that is revoked already are read by the dangerous way, only where the
   operator asked for that: they lie in the server's own database.
4. A value is written on condition that it is still the one that was read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from kagimori.admin.audit import Trail
from kagimori.admin.keys import KeyAdmin
from kagimori.admin.resealing import TrustingRoot, secrets_anew, tag_keys_anew
from kagimori.errors import ConflictError, KeyStateError, RefusedError
from kagimori.keys.changing import Step, StoredRing, change_ring
from kagimori.keys.documents import KeyDocument, all_rings, protection_index
from kagimori.keys.journal import Cause, RingRecord
from kagimori.keys.manager import RefreshPolicy
from kagimori.keys.material import ProtectorRoot
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.timeline import KeyState, KeyUse
from kagimori.storage.store import Store, Versioned
from kagimori.tokens.family import RefreshTokenFamily, SealedTagKey
from kagimori.tokens.records import FAMILIES

PAGE = 200

NODES_SEE = 2 * RefreshPolicy().probe_every
"""After how long every server protects under a new key."""


class Guarding(msgspec.Struct, frozen=True, kw_only=True):
    """
    What lies under one protection key.

    Attributes:
        key: its id.
        state: ``None`` where the ring does not hold it.
        keys: how many signing and cookie keys.
        sign_ins: how many refresh token families.
    """

    key: str
    state: str | None
    keys: int
    sign_ins: int


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was moved to the current protection key.

    Attributes:
        keys: how many signing and cookie keys.
        sign_ins: how many refresh token families.
        turned: how many signing and cookie keys were replaced because of it.
        failed: how many values could not be read, and stay as they are.
    """

    keys: int = 0
    sign_ins: int = 0
    turned: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Line:
    """
    A key that has to be replaced: the current one of an algorithm.
    """

    tenant: str
    use: KeyUse
    algorithm: str


async def _sleep(duration: timedelta) -> None:
    await asyncio.sleep(duration.total_seconds())


class Reprotection:
    """
    Knows and moves what a server's data has under its protection keys.

    Args:
        store: the database.
        ring: the protection ring.
        keys: replaces signing and cookie keys.
        trail: the audit trail.
        wait: lets time pass; tests do not wait.
    """

    def __init__(
        self,
        store: Store,
        ring: ProtectionRing,
        keys: KeyAdmin,
        trail: Trail,
        *,
        wait: Callable[[timedelta], Awaitable[None]] = _sleep,
    ) -> None:
        self._store = store
        self._ring = ring
        self._keys = keys
        self._trail = trail
        self._wait = wait

    # --- looking ---------------------------------------------------------------------------

    async def left(self) -> tuple[Guarding, ...]:
        """
        Say of each protection key what lies under it.

        Raises:
            StoreError: the database does not answer.
            RefusedError: a tenant's keys cannot be read, so nobody can say.
        """
        rings, damaged = await all_rings(self._store)
        if damaged:
            raise RefusedError(
                f"{damaged} of the tenants' rings cannot be read, so what they need is unknown.",
                hint="`kagimori doctor` says which; restore the database from a backup.",
            )
        keys = Counter(
            key.under for ring in rings for key in ring.value.keys if key.under
        )
        views = self._ring.keys()
        states = {view.id: view.state.value for view in views}
        tenants = {ring.value.tenant for ring in rings}
        found = []
        for id_ in dict.fromkeys([*states, *sorted(keys)]):
            sign_ins = 0
            for tenant in tenants:
                sign_ins += await self._store.count(
                    tenant, FAMILIES.kind, protection_index(id_)
                )
            found.append(
                Guarding(
                    key=id_, state=states.get(id_), keys=keys[id_], sign_ins=sign_ins
                )
            )
        return tuple(found)

    async def require_unneeded(self, key_id: str) -> None:
        """
        Refuse to let a protection key go that a value still names (rule 1).

        Raises:
            KeyStateError: one does.
            RefusedError, StoreError: as `left`.
        """
        for each in await self.left():
            if each.key == key_id and (each.keys or each.sign_ins):
                raise KeyStateError(
                    f"{each.keys} keys and {each.sign_ins} sign-ins of this server lie under "
                    f"the protection key {key_id}.",
                    hint="Move them first: kagimori ring reprotect.",
                    key=key_id,
                )

    # --- moving ----------------------------------------------------------------------------

    async def finish(self, cause: Cause, *, trusting: bool = False) -> Moved:
        """
        Move everything that lies under another key than the current one.

        Args:
            trusting: values of revoked keys too (rule 3).

        Raises:
            KeyRingError: nothing can be protected at the moment.
            StoreError: the database does not answer.
        """
        current = self._ring.current_key_id
        root: ProtectorRoot = TrustingRoot(self._ring) if trusting else self._ring
        rings, _ = await all_rings(self._store)
        total = Moved()
        for ring in rings:
            document = ring.value
            if any(key.under not in (None, current) for key in document.keys):
                total = _sum(
                    total,
                    await self._move_ring(
                        root, document.tenant, document.use, current, cause
                    ),
                )
        views = self._ring.keys()
        old = [view.id for view in views if view.id != current]
        for tenant in sorted({ring.value.tenant for ring in rings}):
            for key_id in old:
                total = _sum(total, await self._move_sign_ins(root, tenant, key_id))
        return total

    async def before_revoking(
        self, gone: Collection[str], cause: Cause, *, waits: bool = True
    ) -> Moved:
        """
        Make protection keys dispensable (rule 2).

        Another one protects, nothing lies under them, and what lay under them is replaced.

        Args:
            waits: let all servers see the new key before anything is moved, so that none
                writes under the old one after.

        Raises:
            RefusedError: a value cannot be moved; nothing was revoked.
            KeyRingError, StoreError: as `finish`.
        """
        # Before anything is moved, by running servers too: what lay there once may be known.
        lines = await self._lines_under(gone)
        if self._ring.current_key_id in gone:
            await asyncio.to_thread(
                self._ring.rotate, immediate=True, reason=cause.reason
            )
            if waits:
                await self._wait(NODES_SEE)
        moved = await self.finish(cause, trusting=True)
        for each in await self.left():
            if each.key in gone and (each.keys or each.sign_ins):
                raise RefusedError(
                    f"{each.keys} keys and {each.sign_ins} sign-ins under the protection key "
                    f"{each.key} could not be moved, so nothing was revoked.",
                    hint="`kagimori doctor` says what cannot be read; then try again.",
                )
        for line in lines:
            await self._keys.rotate(
                line.tenant,
                line.use,
                algorithm=line.algorithm if line.use is KeyUse.SIGNING else None,
                now_flag=True,
                emergency=True,
                replace=True,
                cause=cause,
            )
        return msgspec.structs.replace(moved, turned=len(lines))

    # --- steps -----------------------------------------------------------------------------

    async def _lines_under(self, gone: Collection[str]) -> list[_Line]:
        """
        Return the lines whose current key ever lay under one of these protection keys.

        A key that was there while a protection key protected lay under it, wherever it has been
        moved to since: a copy of the database of that day holds it so.
        """
        now = self._ring.now()
        views = self._ring.keys()
        ends = [
            view.timeline.retires or now
            for view in views
            if view.id in gone and view.timeline.activates <= now
        ]
        until = max(ends, default=None)
        rings, _ = await all_rings(self._store)
        lines: dict[_Line, None] = {}
        for ring in rings:
            document, states = ring.value, ring.value.ring()
            for key in document.keys:
                is_known = until is not None and key.timeline.created <= until
                is_current = states.state(key, now) is KeyState.CURRENT
                if is_current and (is_known or key.under in gone):
                    line = _Line(document.tenant, document.use, key.algorithm)
                    lines[line] = None
        return list(lines)

    async def _move_ring(
        self,
        root: ProtectorRoot,
        tenant: str,
        use: KeyUse,
        current: str,
        cause: Cause,
    ) -> Moved:
        seen = await change_ring(self._store, self._trail, tenant, use, Step)
        fresh, failed = await asyncio.to_thread(secrets_anew, root, seen, current)

        def decide(stored: StoredRing) -> Step[int]:
            document = stored.document
            # Only the secret is another text: times and states are as they were read now.
            keys = tuple(_swapped(key, fresh) for key in document.keys)
            moved = [
                key
                for key, old in zip(keys, document.keys, strict=True)
                if key is not old
            ]
            if not moved:
                return Step(0)
            return Step(
                len(moved),
                msgspec.structs.replace(document, keys=keys),
                tuple(_record(use, key, document.generation, cause) for key in moved),
            )

        count = await change_ring(self._store, self._trail, tenant, use, decide)
        return Moved(keys=count, failed=failed)

    async def _move_sign_ins(
        self, root: ProtectorRoot, tenant: str, key_id: str
    ) -> Moved:
        moved = failed = 0
        after: str | None = None
        while True:
            page = await FAMILIES.find(
                self._store, tenant, protection_index(key_id), limit=PAGE, after=after
            )
            if not page:
                return Moved(sign_ins=moved, failed=failed)
            after = page[-1].id
            fresh = await asyncio.to_thread(tag_keys_anew, root, tenant, page)
            failed += len(page) - len(fresh)
            moved += await self._write_sign_ins(tenant, page, fresh)

    async def _write_sign_ins(
        self,
        tenant: str,
        page: Iterable[Versioned[RefreshTokenFamily]],
        fresh: dict[str, SealedTagKey],
    ) -> int:
        wanted = [found for found in page if found.id in fresh]
        changes = [
            FAMILIES.put(
                found.id, _with_tag(found.value, fresh[found.id]), found.version
            )
            for found in wanted
        ]
        if not changes:
            return 0
        try:
            await self._store.commit(tenant, changes)
        except ConflictError:
            # Some were used meanwhile: one by one, those that still name the old key.
            for found in wanted:
                await self._write_sign_in(tenant, found, fresh[found.id])
        return len(wanted)

    async def _write_sign_in(
        self, tenant: str, found: Versioned[RefreshTokenFamily], sealed: SealedTagKey
    ) -> None:
        old = found.value.tag_key

        def decide(
            family: RefreshTokenFamily | None, _now: object
        ) -> tuple[RefreshTokenFamily | None, None]:
            if family is None or family.tag_key != old:
                return None, None
            return _with_tag(family, sealed), None

        await FAMILIES.update(self._store, tenant, found.id, decide)


def _record(use: KeyUse, key: KeyDocument, generation: int, cause: Cause) -> RingRecord:
    under = {"under": key.under or ""}
    return RingRecord(
        "key.reprotected", use, key.id, generation, generation, cause, under
    )


def _sum(one: Moved, two: Moved) -> Moved:
    return Moved(
        keys=one.keys + two.keys,
        sign_ins=one.sign_ins + two.sign_ins,
        turned=one.turned + two.turned,
        failed=one.failed + two.failed,
    )


def _with_tag(family: RefreshTokenFamily, sealed: SealedTagKey) -> RefreshTokenFamily:
    return msgspec.structs.replace(family, tag_key=sealed)


def _swapped(key: KeyDocument, fresh: dict[str, tuple[str, str]]) -> KeyDocument:
    if key.private not in fresh:
        return key
    text, under = fresh[key.private]
    return msgspec.structs.replace(key, private=text, under=under)
