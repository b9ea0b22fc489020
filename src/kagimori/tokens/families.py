"""
Refresh-token families in the store: redeeming, opening, listing.

Rules of this module:

1. A redemption is one `load_many` and at most one commit, whatever is decided. The rule that
   decides is `kagimori.tokens.redeem`; nothing is judged here.
2. A family is opened on condition of its user's and its client's document. So it is either
   seen by a revocation that comes later, or never made.
3. What is random is drawn before the commit loop, which may decide several times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from kagimori.crypto.digests import random_bytes, random_id
from kagimori.errors import InvalidTokenError
from kagimori.events import EventSink, NullSink
from kagimori.storage.store import (
    ABSENT,
    Change,
    Decision,
    Document,
    DocumentKey,
    Loaded,
    Put,
    Reference,
    Store,
    Versioned,
    transact,
)
from kagimori.tokens import family_events
from kagimori.tokens.family import (
    NOWHERE,
    EndReason,
    Opened,
    RefreshTokenFamily,
    Seen,
    choose_evicted,
    open_family,
)
from kagimori.tokens.policy import RefreshPolicy
from kagimori.tokens.records import (
    CLIENT_EPOCHS,
    FAMILIES,
    USER_KIND,
    changes_to_revoke,
    changes_to_write,
    client_epoch,
    raised_epoch,
    redemption_keys,
    unchanged,
    user_client,
    user_standing,
)
from kagimori.tokens.redeem import redeem
from kagimori.tokens.redemption import (
    Inspection,
    Randomness,
    Redeemed,
    RedeemRequest,
    Redemption,
    ends_user,
)
from kagimori.tokens.refresh_token import FAMILY_BYTES, SECRET_BYTES, RefreshToken
from kagimori.tokens.replays import ReplayCounts
from kagimori.tokens.revocation import FamilyRevocation
from kagimori.tokens.successor import NONCE_BYTES
from kagimori.tokens.tag_keys import TagKeyring, TagKeyRoot

_TIDIED = 25
"""Families that one sign-in puts away at most."""


class RefreshFamilies:
    """
    The families of all tenants.

    Args:
        store: where they lie.
        protector: under which their tag keys are protected.
        raise_epoch: takes a user's document and returns the change that raises its epoch;
            given by the layer that owns users.
        events: told of every outcome.
        replays: what this instance remembers of answered replays.
    """

    def __init__(
        self,
        store: Store,
        protector: TagKeyRoot,
        *,
        raise_epoch: Callable[[Document], Put],
        events: EventSink | None = None,
        replays: ReplayCounts | None = None,
    ) -> None:
        self._store = store
        self._tag_keys = TagKeyring(protector)
        self._raise_epoch = raise_epoch
        self._events = NullSink() if events is None else events
        self.revocation = FamilyRevocation(
            store, self._tag_keys, raise_epoch, self._events
        )
        self._replays = ReplayCounts() if replays is None else replays

    # --- redeeming -------------------------------------------------------------------------

    async def redeem_token(
        self,
        tenant: str,
        text: str,
        *,
        client: str,
        policy: RefreshPolicy,
        longest_access: timedelta,
        scope: tuple[str, ...] | None = None,
        resource: str | None = None,
        permitted_scope: frozenset[str] | None = None,
        permitted_resources: frozenset[str] | None = None,
        seen: Seen | None = None,
    ) -> Redeemed:
        """
        Judge a presented refresh token and commit what was decided.

        What the access token then gets is `Redeemed.scope` and `Redeemed.resource`, for
        `RefreshTokenFamily.access_lifetime` at most. All else is in `RedeemRequest`.

        Args:
            client: the authenticated client that presents it.
            policy: that client's policy.

        Raises:
            ContentionError: too many races were lost; a retry may succeed.
            StoreError: as the store raises. The outcome may be unknown; a retry is safe.
            RingUnreadableError: the ring cannot be asked for a key at the moment.
        """
        try:
            token = RefreshToken.parse(text)
        except InvalidTokenError as exc:
            unread = Redeemed(outcome=Redemption.FORGED, reason=exc.detail)
            return self._tell(tenant, client, 0, unread)
        randomness = Randomness(random_bytes(SECRET_BYTES), random_bytes(NONCE_BYTES))
        tag_keys = self._tag_keys.reader(tenant)

        def decide(loaded: Loaded) -> Decision[tuple[Redeemed, int | None]]:
            found = FAMILIES.maybe(loaded.documents[0])
            if found is None:
                unknown = Redeemed(outcome=Redemption.FORGED, reason="unknown family")
                return Decision((unknown, None))
            family = found.value
            request = RedeemRequest(
                token=token,
                client=client,
                policy=policy,
                user=user_standing(loaded.documents[1]),
                client_epoch=client_epoch(loaded.documents[2]),
                tag_keys=tag_keys.of(family.tag_key),
                randomness=randomness,
                longest_access=longest_access,
                scope=scope,
                resource=resource,
                permitted_scope=permitted_scope,
                permitted_resources=permitted_resources,
                replays=self._replays.of(family.id, token.generation),
                seen=seen or NOWHERE,
            )
            verdict = redeem(family, request, loaded.now)
            if verdict.family is None or not verdict.is_changed:
                return Decision((verdict, None))
            changes = changes_to_write(found, verdict.family, loaded.now)
            if ends_user(verdict, policy) and loaded.documents[1] is not None:
                put = self._raise_epoch(loaded.documents[1])
                return Decision((verdict, raised_epoch(put)), (*changes, put))
            return Decision((verdict, None), changes)

        keys = redemption_keys(token.family_id)
        verdict, epoch = await tag_keys.reading(
            lambda: transact(self._store, tenant, keys, decide)
        )
        if verdict.outcome is Redemption.REPLAYED:
            self._replays.add(token.family_id, token.generation)
        self._tell(tenant, client, token.generation, verdict)
        if verdict.family is not None and ends_user(verdict, policy):
            await self.revocation.revoke_user(
                tenant, verdict.family.user, EndReason.REUSE, epoch=epoch
            )
        return verdict

    def _tell(
        self, tenant: str, client: str, generation: int, verdict: Redeemed
    ) -> Redeemed:
        for event in family_events.of_redemption(tenant, client, generation, verdict):
            self._events.emit(event)
        return verdict

    # --- opening ---------------------------------------------------------------------------

    async def open_family(
        self,
        tenant: str,
        *,
        client: str,
        user: str,
        epoch: int,
        policy: RefreshPolicy,
        longest_access: timedelta,
        now: datetime,
        scope: Collection[str] = (),
        resources: Collection[str] = (),
        session: str | None = None,
        grant: str | None = None,
        auth_time: datetime | None = None,
        acr: str | None = None,
        amr: Collection[str] = (),
        device: str = "",
        seen: Seen | None = None,
    ) -> Opened:
        """
        Open a family after a sign-in; the oldest-used ones make way beyond `max_families`.

        Args:
            epoch: the user's epoch as read when the user proved to be one.
            now: of the request; which families make way is looked up by it.

        Raises:
            InvalidTokenError: the user was disabled, removed or signed out everywhere since,
                or the client revoked meanwhile.
            ContentionError: too many races were lost.
            StoreError: as the store raises.
        """
        id_ = random_id(FAMILY_BYTES)
        secret = random_bytes(SECRET_BYTES)
        tag_keys = self._tag_keys.make(tenant)
        others = await self._find_leaving(tenant, user, client, policy, now)
        began_at: list[int] = []
        keys: list[DocumentKey | Reference] = [
            DocumentKey(USER_KIND, user),
            CLIENT_EPOCHS.key(client),
            *(FAMILIES.key(other) for other in others),
        ]

        def decide(loaded: Loaded) -> Decision[tuple[Opened, list[RefreshTokenFamily]]]:
            user_document, epoch_document, *rest = loaded.documents
            standing = user_standing(user_document)
            if standing is None or standing.disabled or standing.epoch != epoch:
                raise _sign_in_over("the user was disabled, removed or signed out")
            # Whoever decides again lost to something: if to a revocation, this comes before it.
            began_at.append(client_epoch(epoch_document))
            if began_at[0] != began_at[-1]:
                raise _sign_in_over("the client was revoked")
            opened = open_family(
                id_=id_,
                tenant=tenant,
                client=client,
                user=user,
                policy=policy,
                longest_access=longest_access,
                secret=secret,
                tag_key=tag_keys.successors,
                sealed_tag_key=tag_keys.sealed,
                now=loaded.now,
                epoch=epoch,
                client_epoch=began_at[0],
                scope=scope,
                resources=resources,
                session=session,
                grant=grant,
                auth_time=auth_time,
                acr=acr,
                amr=amr,
                device=device,
                seen=seen,
            )
            changes: list[Change] = [
                FAMILIES.put(id_, opened.family, ABSENT),
                unchanged(USER_KIND, user, user_document),
                unchanged(CLIENT_EPOCHS.kind, client, epoch_document),
            ]
            evicted = []
            for document in rest:
                other = FAMILIES.maybe(document)
                if other is None or other.value.revoked_at is not None:
                    continue
                if other.value.is_live(loaded.now):
                    evicted.append(other.value)
                changes += changes_to_revoke(other, EndReason.EVICTED, loaded.now)
            return Decision((opened, evicted), tuple(changes))

        opened, evicted = await transact(self._store, tenant, keys, decide)
        for family in evicted:
            self._events.emit(family_events.evicted(family))
        return opened

    async def _find_leaving(
        self,
        tenant: str,
        user: str,
        client: str,
        policy: RefreshPolicy,
        now: datetime,
    ) -> list[str]:
        found = await FAMILIES.find(
            self._store,
            tenant,
            ("seat", user_client(user, client)),
            limit=policy.max_families + 2 * _TIDIED,
        )
        families = [each.value for each in found]
        evicted = choose_evicted(families, policy.max_families - 1, now)
        # Those that ended by themselves give up their seats on the way, so that seats stay few.
        over = [family for family in families if not family.is_live(now)]
        return [family.id for family in (*evicted, *over)][:_TIDIED]

    # --- looking --------------------------------------------------------------------------

    async def inspect_token(self, tenant: str, text: str) -> Inspection | None:
        """
        Say what a refresh token is, without using it; ``None`` when it is none of ours.

        Raises:
            StoreError: as the store raises.
            RingUnreadableError: the ring cannot be asked for a key at the moment.
        """
        try:
            token = RefreshToken.parse(text)
        except InvalidTokenError:
            return None
        reader = self._tag_keys.reader(tenant)
        keys = redemption_keys(token.family_id)

        async def look() -> tuple[Loaded, Versioned[RefreshTokenFamily] | None]:
            loaded = await self._store.load_many(tenant, keys)
            found = FAMILIES.maybe(loaded.documents[0])
            is_ours = found is not None and reader.proves(token, found.value)
            return loaded, found if is_ours else None

        loaded, found = await reader.reading(look)
        if found is None:
            return None
        family, user = found.value, user_standing(loaded.documents[1])
        is_active = (
            family.generation == token.generation
            and family.knows(token)
            and family.is_live(loaded.now)
            and user is not None
            and not user.disabled
            and user.epoch == family.epoch
            and client_epoch(loaded.documents[2]) == family.client_epoch
        )
        return Inspection(family, token.generation, is_active)

    async def get_family(
        self, tenant: str, family_id: str
    ) -> RefreshTokenFamily | None:
        """
        Return one family, over or not; ``None`` when it is not kept (any more).
        """
        found = await FAMILIES.get(self._store, tenant, family_id)
        return None if found is None else found.value

    async def list_families(
        self,
        tenant: str,
        *,
        user: str | None = None,
        client: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[RefreshTokenFamily, ...]:
        """
        List families in the order of their ids, those over included, a page at a time.

        Args:
            user: only this user's.
            client: only this client's.
            after: the id after which the page begins.
        """
        index: tuple[str, str] | None = None
        if user is not None and client is not None:
            index = ("user_client", user_client(user, client))
        elif user is not None:
            index = ("user", user)
        elif client is not None:
            index = ("client", client)
        found = await FAMILIES.find(
            self._store, tenant, index, limit=limit, after=after
        )
        return tuple(each.value for each in found)


def _sign_in_over(why: str) -> InvalidTokenError:
    return InvalidTokenError(
        "The sign-in is no longer valid.", detail=f"{why} meanwhile"
    )
