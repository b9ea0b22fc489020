"""
The operator's verbs for keys: list, rotate, cancel, delete, revoke.

Rules of this module:

1. Keys are made before the commit; whether the verb applies is decided inside, by the store's
   time, and again for each attempt.
2. Each verb leaves its audit record in the same commit, and answers with the generation.
3. An immediate switch is dated one second ahead, so that all servers make it together, and
   the verb returns after it.
"""

from __future__ import annotations

import dataclasses

import msgspec

from kagimori.admin.key_turn import Turn, check_request, server_use
from kagimori.admin.key_verbs import KeyVerbs, Turned, live_under, step_of
from kagimori.admin.key_views import (
    KeyOutcome,
    KeyPreview,
    KeyView,
    protection_view,
    view_of,
    views_of,
)
from kagimori.errors import KeyStateError
from kagimori.keys import refusals
from kagimori.keys.changing import Step, StoredRing
from kagimori.keys.documents import KeyDocument
from kagimori.keys.journal import Cause, RingRecord
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.timeline import KeyState, KeyUse

__all__ = ["KeyAdmin", "KeyOutcome", "KeyPreview", "KeyView"]


class KeyAdmin(KeyVerbs):
    """
    Turns the signing and cookie keys of tenants.
    """

    # --- looking -----------------------------------------------------------------------

    async def list(self, tenant: str) -> tuple[KeyView, ...]:
        """
        Return all keys of a tenant, and the protection keys, which all tenants share.

        Raises:
            NotFoundError: there is no such tenant.
        """
        views: list[KeyView] = []
        for use in (KeyUse.SIGNING, KeyUse.COOKIE):
            stored = await self._read(tenant, use)
            views += views_of(stored, stored.now)
        views += map(protection_view, self._protection.keys(self._clock.now()))
        return tuple(views)

    async def preview(self, tenant: str, use: KeyUse, kid: str) -> KeyPreview:
        """
        Tell what deleting or revoking a key now would cut.

        Raises:
            NotFoundError: there is no such tenant or key.
        """
        stored = await self._read(tenant, server_use(use))
        live = live_under(stored, kid)
        seen = stored.ring.preview(kid, now=stored.now, live=live)
        return KeyPreview(
            key=view_of(use, seen.key, seen.state),
            live_tokens=live.count,
            safe=seen.safe_at,
        )

    # --- rotating ----------------------------------------------------------------------

    async def rotate(
        self,
        tenant: str,
        use: KeyUse,
        *,
        algorithm: str | None = None,
        default: bool = False,
        now_flag: bool = False,
        emergency: bool = False,
        replace: bool = False,
        cause: Cause,
    ) -> KeyOutcome:
        """
        Turn the key of one algorithm. Tokens of the replaced key stay valid.

        Without flags a NEXT key is made: published at once, signing after the propagation.
        `now_flag` lets a propagated NEXT sign at once; with `emergency` a new key does where
        none has propagated, and this returns after the switch.

        Args:
            algorithm: ``None`` means the tenant's default.
            default: let the algorithm be the default from the key's activation on.
            replace: drop a NEXT that waits, and make another.

        Raises:
            NotFoundError: there is no such tenant.
            NextKeyWaitsError: a NEXT waits; the text has its dates.
            NotPropagatedError: nothing can sign at once; the text says from when on.
            KeyStateError: the line or the default is changing already.
            RefusedError: the request contradicts itself.
            UnsupportedAlgorithmError: the algorithm is not offered.
            KeyRingError: the new key cannot be protected.
        """
        check_request(
            use, algorithm, default=default, at_once=now_flag, emergency=emergency
        )
        seen = await self._read(tenant, use)
        name = algorithm or seen.ring.default(seen.now)
        turn = Turn(
            use=use,
            algorithm=name,
            default=default,
            at_once=now_flag,
            emergency=emergency,
            replace=replace,
        )
        end_old = default and await self._may_end(tenant, seen, name)
        new: KeyDocument | None = None
        if turn.needs_key(seen):
            like = seen.ring.current(seen.now, name)
            new = await self._make(tenant, use, name, like)

        def decide(stored: StoredRing) -> Step[Turned]:
            change = turn.decide(stored, new, end_old=end_old)
            return step_of(stored, change, cause)

        turned = await self._change(tenant, use, decide)
        if now_flag:
            await self._wait(turned.change.key.timeline.activates)
            await self._tidy(tenant, use)
        return self._outcome(tenant, turned)

    async def set_default(
        self,
        tenant: str,
        algorithm: str,
        *,
        cause: Cause,
    ) -> KeyOutcome:
        """
        Let an algorithm that has a current key be the default, at once.

        Raises:
            NotFoundError: there is no such tenant.
            KeyStateError: it has no current key, or is the default already.
        """
        seen = await self._read(tenant, KeyUse.SIGNING)
        end_old = await self._may_end(tenant, seen, algorithm)

        def decide(stored: StoredRing) -> Step[Turned]:
            change = stored.ring.make_default(
                algorithm, now=stored.now, end_old_default=end_old
            )
            return step_of(stored, change, cause)

        return self._outcome(tenant, await self._change(tenant, KeyUse.SIGNING, decide))

    async def set_policy(
        self,
        tenant: str,
        use: KeyUse,
        policy: RotationPolicy,
        *,
        cause: Cause,
    ) -> int:
        """
        Let a ring's next keys turn by another policy; return the ring's generation.

        No date that is written on a key changes.

        Raises:
            NotFoundError: there is no such tenant.
            ConfigError: the policy is impossible.
        """
        policy.validate()

        def decide(stored: StoredRing) -> Step[int]:
            ring = dataclasses.replace(
                stored.ring, generation=stored.ring.generation + 1, changed=stored.now
            )
            document = msgspec.structs.replace(
                stored.document.with_ring(ring), policy=policy
            )
            record = RingRecord(
                "ring.policy_changed",
                use,
                "",
                stored.document.generation,
                ring.generation,
                cause,
                {"scheduled": "yes" if policy.scheduled else "no"},
            )
            return Step(ring.generation, document, (record,))

        return await self._change(tenant, server_use(use), decide)

    # --- taking back and ending --------------------------------------------------------

    async def cancel(
        self,
        tenant: str,
        use: KeyUse,
        *,
        kid: str | None = None,
        cause: Cause,
    ) -> KeyOutcome:
        """
        Take back a NEXT key; its predecessor goes on.

        Args:
            kid: which; may be left out where one waits.

        Raises:
            NotFoundError: there is no such tenant or key.
            KeyStateError: none waits, several do, or the key is not NEXT.
        """

        def decide(stored: StoredRing) -> Step[Turned]:
            change = stored.ring.cancel(
                kid or _only_next(stored),
                now=stored.now,
                policy=stored.document.policy,
            )
            return step_of(stored, change, cause)

        turned = await self._change(tenant, server_use(use), decide)
        return self._outcome(tenant, turned)

    async def delete(
        self,
        tenant: str,
        use: KeyUse,
        kid: str,
        *,
        force: bool = False,
        cause: Cause,
    ) -> KeyOutcome:
        """
        Destroy a PREVIOUS or RETIRED key; it leaves JWKS and list, and its tokens fail.

        Args:
            force: although tokens under it are alive.

        Raises:
            NotFoundError: there is no such tenant or key.
            KeyStateError: it signs, waits or is revoked, or tokens live under it and there
                is no `force`: the text names their number and the safe moment.
        """

        def decide(stored: StoredRing) -> Step[Turned]:
            live = live_under(stored, kid)
            change = stored.ring.delete(kid, now=stored.now, live=live, force=force)
            return step_of(stored, change, cause, live=live.count, forced=force)

        turned = await self._change(tenant, server_use(use), decide)
        return self._outcome(tenant, turned)

    async def revoke(
        self,
        tenant: str,
        use: KeyUse,
        kid: str,
        *,
        cause: Cause,
    ) -> KeyOutcome:
        """
        Revoke a key: its tokens fail from now on. A current one is replaced at once.

        Raises:
            NotFoundError: there is no such tenant or key.
            KeyStateError: it is revoked already.
            KeyRingError: a replacement cannot be protected.
        """
        seen = await self._read(tenant, server_use(use))
        old = seen.ring.get(kid)
        if old is None:
            raise refusals.no_such_key(kid, use)
        heir: KeyDocument | None = None
        if seen.ring.state(old, seen.now) in (KeyState.NEXT, KeyState.CURRENT):
            heir = await self._make(tenant, use, old.algorithm, old)

        def decide(stored: StoredRing) -> Step[Turned]:
            live = live_under(stored, kid)
            change = stored.ring.revoke(
                kid, now=stored.now, policy=stored.document.policy, replacement=heir
            )
            return step_of(stored, change, cause, live=live.count)

        turned = await self._change(tenant, use, decide)
        return self._outcome(tenant, turned)


def _only_next(stored: StoredRing) -> str:
    ring, now = stored.ring, stored.now
    waiting = [key for key in ring if ring.state(key, now) is KeyState.NEXT]
    if len(waiting) == 1:
        return waiting[0].id
    if not waiting:
        raise KeyStateError(
            f"No {ring.use.value} key waits, so there is nothing to cancel.",
            hint="`kagimori keys list` shows the keys.",
        )
    raise KeyStateError(
        f"{len(waiting)} {ring.use.value} keys wait.",
        hint=f"Name one of {', '.join(key.id for key in waiting)}.",
    )
