"""
The operator's verbs for users.

Rules of this module:

1. What ends a user's sign-ins raises the user's epoch in the same commit, so that no family of
   before is usable from that commit on; revoking them one by one comes after (B9).
2. Outside the demo world known and weak passwords are refused (K10).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from kagimori.admin.audit import Trail
from kagimori.admin.verb import Done, commit_verb
from kagimori.errors import NotFoundError, RefusedError
from kagimori.identity.hashing import HashPool
from kagimori.identity.password import hash_password, with_password_hash
from kagimori.identity.user import (
    USERNAMES,
    USERS,
    User,
    creation,
    new_user,
    username_key,
)
from kagimori.keys.journal import Cause
from kagimori.storage.store import Document, DocumentKey, Reference, Store
from kagimori.tokens.family import EndReason
from kagimori.tokens.revocation import FamilyRevocation

PAGE = 200


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """
    What may be shown of a user.
    """

    id: str
    username: str
    name: str
    created: datetime
    disabled: bool
    has_password: bool

    @classmethod
    def of(cls, user: User) -> UserView:
        """
        Return the view of a user.
        """
        return cls(
            id=user.id,
            username=user.username,
            name=user.name,
            created=user.created,
            disabled=user.disabled,
            has_password=user.password_hash is not None,
        )


class UserAdmin:
    """
    Makes, changes and disables users.

    Args:
        known_passwords: takes known and weak passwords: the demo world only.
    """

    def __init__(
        self,
        store: Store,
        trail: Trail,
        pool: HashPool,
        revocation: FamilyRevocation,
        now: Callable[[], datetime],
        *,
        known_passwords: bool = False,
    ) -> None:
        self._store = store
        self._trail = trail
        self._pool = pool
        self._revocation = revocation
        self._now = now
        self._known_passwords = known_passwords

    async def list(self, tenant: str) -> tuple[UserView, ...]:
        """
        Return all users of a tenant, in the order of their ids.
        """
        found: list[UserView] = []
        after: str | None = None
        while True:
            page = await USERS.find(self._store, tenant, limit=PAGE, after=after)
            found += [UserView.of(user.value) for user in page]
            if len(page) < PAGE:
                return tuple(found)
            after = page[-1].id

    async def create(
        self,
        tenant: str,
        username: str,
        *,
        name: str = "",
        password: str | None = None,
        cause: Cause,
    ) -> UserView:
        """
        Make a user.

        Raises:
            ConfigError: the username cannot be one.
            InsecureConfigError: the password is weak.
            RefusedError: the username is taken.
        """
        hashed = await self._hash(password, username) if password else None
        user = new_user(username, now=self._now(), password_hash=hashed, name=name)

        def decide(documents: tuple[Document | None, ...], _: datetime) -> Done[None]:
            if documents[0] is not None:
                raise RefusedError(f"There is a user {username!r} already.")
            return Done(None, creation(user))

        await commit_verb(
            self._store,
            self._trail,
            tenant,
            "user.created",
            user.id,
            cause,
            [USERNAMES.key(username_key(username))],
            decide,
        )
        return UserView.of(user)

    async def set_password(
        self,
        tenant: str,
        username: str,
        password: str,
        *,
        keep_sessions: bool = False,
        cause: Cause,
    ) -> int:
        """
        Set a password and end earlier sign-ins; return how many ended.

        Args:
            keep_sessions: let them live on.

        Raises:
            NotFoundError: there is no such user.
            InsecureConfigError: the password is weak.
        """
        hashed = await self._hash(password, username)

        def change(user: User) -> User:
            changed = with_password_hash(user, hashed)
            return changed if keep_sessions else _later_epoch(changed)

        user = await self._change(tenant, username, "user.password_set", cause, change)
        if keep_sessions:
            return 0
        return await self._end_families(tenant, user, EndReason.USER_SIGNED_OUT)

    async def disable(self, tenant: str, username: str, *, cause: Cause) -> int:
        """
        End a user's sign-ins and let none begin; return how many ended.

        Raises:
            NotFoundError: there is no such user.
        """

        def change(user: User) -> User:
            return _later_epoch(msgspec.structs.replace(user, disabled=True))

        user = await self._change(tenant, username, "user.disabled", cause, change)
        return await self._end_families(tenant, user, EndReason.USER_DISABLED)

    async def enable(self, tenant: str, username: str, *, cause: Cause) -> None:
        """
        Let a disabled user sign in again.

        Raises:
            NotFoundError: there is no such user.
        """

        def change(user: User) -> User:
            return msgspec.structs.replace(user, disabled=False)

        await self._change(tenant, username, "user.enabled", cause, change)

    async def find(self, tenant: str, username: str) -> User:
        """
        Return the user of a username.

        Raises:
            NotFoundError: there is none.
        """
        loaded = await self._store.load_many(tenant, _keys(username))
        found = USERS.maybe(loaded.documents[1])
        if found is None:
            raise _unknown(username)
        return found.value

    async def _hash(self, password: str, username: str) -> str:
        return await hash_password(
            self._pool, password, username=username, known=self._known_passwords
        )

    async def _end_families(self, tenant: str, user: User, reason: EndReason) -> int:
        return await self._revocation.revoke_user(
            tenant, user.id, reason, epoch=user.epoch
        )

    async def _change(
        self,
        tenant: str,
        username: str,
        action: str,
        cause: Cause,
        change: Callable[[User], User],
    ) -> User:
        # The record's subject is the id, which stays; a username may change hands.
        subject = (await self.find(tenant, username)).id

        def decide(documents: tuple[Document | None, ...], _: datetime) -> Done[User]:
            found = USERS.maybe(documents[1])
            if found is None or found.id != subject:
                raise _unknown(username)
            new = change(found.value)
            if new == found.value:
                return Done(new)
            return Done(new, (USERS.put(found.id, new, found.version),))

        return await commit_verb(
            self._store,
            self._trail,
            tenant,
            action,
            subject,
            cause,
            _keys(username),
            decide,
        )


def _keys(username: str) -> list[DocumentKey | Reference]:
    key = USERNAMES.key(username_key(username))
    return [key, Reference(USERS.kind, 0, "user")]


def _later_epoch(user: User) -> User:
    return msgspec.structs.replace(user, epoch=user.epoch + 1)


def _unknown(username: str) -> NotFoundError:
    return NotFoundError(
        f"There is no user {username!r}.", hint="See `kagimori users list`."
    )
