"""
Ending sign-ins: by token, by family, by user, by client (requirements B9).

Rules of this module:

1. Whoever signs out raises an epoch first and revokes the families after. From the first
   commit on no family of before is usable; the rest may be repeated after a crash.
2. A revocation rewrites the family's own document, so it and a racing refresh cannot both win
   (race R7), and denies the family's access tokens in the same commit.
3. A sign-in made after the epoch was raised carries the new one, and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from kagimori.errors import ContentionError, InvalidTokenError
from kagimori.events import EventSink, NullSink
from kagimori.storage.store import (
    Change,
    Decision,
    Document,
    DocumentKey,
    Loaded,
    Put,
    Store,
    transact,
)
from kagimori.tokens import family_events
from kagimori.tokens.family import EndReason, RefreshTokenFamily
from kagimori.tokens.records import (
    CLIENT_EPOCHS,
    FAMILIES,
    USER_KIND,
    ClientEpoch,
    changes_to_revoke,
    raised_epoch,
)
from kagimori.tokens.refresh_token import RefreshToken
from kagimori.tokens.tag_keys import TagKeyring

_BATCH = 14
"""Families revoked in one commit, each with its entry in the deny set."""

_PAGE = 200
_PATIENCE = 200
"""How often a single revocation decides again, under a storm of refreshes."""


class FamilyRevocation:
    """
    Ends families.

    Args:
        store: where they lie.
        tag_keys: by which old tokens are known again.
        raise_epoch: takes a user's document and returns the change that raises its epoch;
            given by the layer that owns users.
        events: told of every family that ended here.
    """

    def __init__(
        self,
        store: Store,
        tag_keys: TagKeyring,
        raise_epoch: Callable[[Document], Put],
        events: EventSink | None = None,
    ) -> None:
        self._store = store
        self._tag_keys = tag_keys
        self._raise_epoch = raise_epoch
        self._events = NullSink() if events is None else events

    async def revoke_token(self, tenant: str, text: str, *, client: str) -> bool:
        """
        Revoke the family of a refresh token, whichever of its tokens is shown (RFC 7009).

        Returns:
            Whether the client may be told that the token is over: ``True`` also for a text
            that is no token of ours; ``False`` when it belongs to another client, and then
            nothing was done (REV-2).

        Raises:
            StoreError: as the store raises; the token may still live.
            RingUnreadableError: the ring cannot be asked for a key at the moment.
        """
        try:
            token = RefreshToken.parse(text)
        except InvalidTokenError:
            return True
        tag_keys = self._tag_keys.reader(tenant)

        def decide(loaded: Loaded) -> Decision[tuple[bool, RefreshTokenFamily | None]]:
            found = FAMILIES.maybe(loaded.documents[0])
            if found is None or not tag_keys.proves(token, found.value):
                # Whoever merely guesses a family's id revokes nothing.
                return Decision((True, None))
            if found.value.client != client:
                return Decision((False, None))
            changes = changes_to_revoke(found, EndReason.TOKEN_REVOKED, loaded.now)
            return Decision((True, found.value if changes else None), changes)

        keys = [FAMILIES.key(token.family_id)]
        told, ended = await tag_keys.reading(
            lambda: transact(self._store, tenant, keys, decide, attempts=_PATIENCE)
        )
        self._tell_revoked(ended, EndReason.TOKEN_REVOKED)
        return told

    async def revoke_family(
        self, tenant: str, family_id: str, reason: EndReason = EndReason.OPERATOR
    ) -> bool:
        """
        Revoke one family and deny its access tokens; return whether it was not over before.

        Raises:
            StoreError: as the store raises.
        """
        return await self._revoke_batch(tenant, [family_id], reason) > 0

    async def revoke_user(
        self,
        tenant: str,
        user: str,
        reason: EndReason = EndReason.USER_SIGNED_OUT,
        *,
        epoch: int | None = None,
    ) -> int:
        """
        End every sign-in of a user; return how many families were revoked.

        Args:
            epoch: what the caller has raised the user's epoch to already, in the commit that
                changed the password, say; left out, it is raised here.

        Raises:
            StoreError: as the store raises. Called again it goes on where it stopped.
        """
        if epoch is None:

            def decide(loaded: Loaded) -> Decision[int | None]:
                document = loaded.documents[0]
                if document is None:
                    return Decision(None)
                put = self._raise_epoch(document)
                return Decision(raised_epoch(put), (put,))

            keys = [DocumentKey(USER_KIND, user)]
            epoch = await transact(
                self._store, tenant, keys, decide, attempts=_PATIENCE
            )

        def is_later(family: RefreshTokenFamily) -> bool:
            return epoch is not None and family.epoch >= epoch

        return await self._revoke_found(tenant, ("user", user), reason, is_later)

    async def revoke_client(
        self,
        tenant: str,
        client: str,
        reason: EndReason = EndReason.CLIENT_REVOKED,
        *,
        epoch: int | None = None,
    ) -> int:
        """
        End every sign-in at a client; return how many families were revoked.

        Args:
            epoch: what the caller has raised the client's epoch to already; left out, it is
                raised here.

        Raises:
            StoreError: as the store raises. Called again it goes on where it stopped.
        """

        def decide(old: ClientEpoch | None, now: datetime) -> tuple[ClientEpoch, int]:
            new = (old.epoch if old else 0) + 1
            return ClientEpoch(new, now), new

        if epoch is None:
            epoch = await CLIENT_EPOCHS.update(self._store, tenant, client, decide)
        raised = epoch

        def is_later(family: RefreshTokenFamily) -> bool:
            return family.client_epoch >= raised

        return await self._revoke_found(tenant, ("client", client), reason, is_later)

    async def _revoke_found(
        self,
        tenant: str,
        index: tuple[str, str],
        reason: EndReason,
        is_later: Callable[[RefreshTokenFamily], bool],
    ) -> int:
        """
        Revoke the families that an index field finds, but for later ones; count the live.
        """
        count, after = 0, None
        while True:
            page = await FAMILIES.find(
                self._store, tenant, index, limit=_PAGE, after=after
            )
            live = [
                found.id
                for found in page
                if found.value.revoked_at is None and not is_later(found.value)
            ]
            for start in range(0, len(live), _BATCH):
                batch = live[start : start + _BATCH]
                count += await self._revoke_patiently(tenant, batch, reason)
            if len(page) < _PAGE:
                return count
            after = page[-1].id

    async def _revoke_patiently(
        self, tenant: str, ids: Sequence[str], reason: EndReason
    ) -> int:
        try:
            return await self._revoke_batch(tenant, ids, reason, attempts=3)
        except ContentionError:
            # Refreshes kept touching one of them; alone, each has far fewer rivals.
            return sum([await self._revoke_batch(tenant, [id_], reason) for id_ in ids])

    async def _revoke_batch(
        self,
        tenant: str,
        ids: Sequence[str],
        reason: EndReason,
        *,
        attempts: int = _PATIENCE,
    ) -> int:
        def decide(loaded: Loaded) -> Decision[list[RefreshTokenFamily]]:
            changes: list[Change] = []
            ended = []
            for document in loaded.documents:
                found = FAMILIES.maybe(document)
                if found is not None and found.value.revoked_at is None:
                    changes += changes_to_revoke(found, reason, loaded.now)
                    if found.value.is_live(loaded.now):
                        ended.append(found.value)
            return Decision(ended, tuple(changes))

        keys = [FAMILIES.key(id_) for id_ in ids]
        ended = await transact(self._store, tenant, keys, decide, attempts=attempts)
        for family in ended:
            self._tell_revoked(family, reason)
        return len(ended)

    def _tell_revoked(
        self, family: RefreshTokenFamily | None, reason: EndReason
    ) -> None:
        if family is not None:
            self._events.emit(family_events.revoked(family, reason))
