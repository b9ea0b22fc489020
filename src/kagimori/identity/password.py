"""
Signing in with a username and a password.

Rules of this module:

1. An unknown username costs what a wrong password costs, and both look the same (A13).
2. Limits count by the name that was typed, so they tell nothing about who exists.
3. Whether a user may be signed in at all is not judged here: that is the one choke point's.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime

import msgspec

from kagimori.crypto import passwords
from kagimori.errors import BusyError, StoreError
from kagimori.events import Event, EventSink, Severity
from kagimori.identity.credentials import Attempt, CredentialCheck, Stored, Subject
from kagimori.identity.hashing import HashPool
from kagimori.identity.strength import check_password
from kagimori.identity.user import USERNAMES, USERS, User, is_username, username_key
from kagimori.storage.store import Reference, Store, Versioned


class PasswordSignIn:
    """
    Finds the user that a username and a password belong to.

    Args:
        store: where users lie.
        check: judges the password, under the limits.
        pool: hashes a password anew where its parameters have become old.
        events: told of every refusal.
    """

    def __init__(
        self,
        store: Store,
        check: CredentialCheck,
        pool: HashPool,
        events: EventSink,
    ) -> None:
        self._events = events
        self._store = store
        self._check = check
        self._pool = pool

    async def authenticate(
        self, tenant: str, username: str, password: str, address: str, now: datetime
    ) -> Versioned[User] | None:
        """
        Return the user, or ``None`` where there is none with this password.

        Args:
            address: where the attempt comes from.

        Raises:
            ThrottledError: too many failures.
            BusyError: too many passwords are being hashed.
            StoreError: as the store raises.
        """
        found = await self._find(tenant, username)
        password_hash = found.value.password_hash if found else None
        secret = normalize_password(password)
        subject = Subject("account", tenant, username_key(username))
        match = await self._check.match(
            Attempt(subject, secret, address, now),
            found.version if found else 0,
            (Stored(password_hash),) if password_hash else (),
        )
        if found is None or match is None:
            # The name that was typed stays out: people type passwords there by mistake.
            fields = {
                "tenant": tenant,
                "user": found.id if found else None,
                "address": address,
            }
            self._events.emit(Event("password.failed", fields, Severity.WARNING))
            return None
        if passwords.needs_rehash(match.digest):
            await self._rehash(tenant, found.id, match.digest, secret)
        return found

    async def _find(self, tenant: str, username: str) -> Versioned[User] | None:
        if not is_username(username):
            return None
        loaded = await self._store.load_many(
            tenant,
            [USERNAMES.key(username_key(username)), Reference(USERS.kind, 0, "user")],
        )
        return USERS.maybe(loaded.documents[1])

    async def _rehash(self, tenant: str, id_: str, old: str, secret: str) -> None:
        try:
            new = await self._pool.hash(secret)

            def renew(user: User | None, _: datetime) -> tuple[User | None, None]:
                # Somebody may have changed the password meanwhile: then theirs stands.
                if user is None or user.password_hash != old:
                    return None, None
                return with_password_hash(user, new), None

            await USERS.update(self._store, tenant, id_, renew)
        except (BusyError, StoreError):
            # The password was good; a better hash of it can wait for another sign-in.
            return


async def hash_password(
    pool: HashPool, password: str, *, username: str = "", known: bool = False
) -> str:
    """
    Return the stored form of a new password.

    Args:
        known: whether known and weak passwords are taken: the demo world only.

    Raises:
        InsecureConfigError: the password is weak.
        BusyError: too many passwords are being hashed.
    """
    check_password(password, username=username, known=known)
    return await pool.hash(normalize_password(password))


def normalize_password(password: str) -> str:
    """
    Return one form of a password for all keyboards (RFC 8265 section 4.2: NFC, plain spaces).
    """
    if password.isascii():
        return password
    spaced = "".join(
        " " if unicodedata.category(char) == "Zs" else char for char in password
    )
    return unicodedata.normalize("NFC", spaced)


def with_password_hash(user: User, password_hash: str | None) -> User:
    """
    Return the user with another password, sign-ins unchanged.
    """
    return msgspec.structs.replace(user, password_hash=password_hash)
