"""
A user: somebody whom tokens speak of.

Rules of this module:

1. `User.id` is what ``sub`` holds: stable, never reassigned, and without a meaning.
2. A username belongs to one user. A document of its own, written in the commit that makes the
   user, makes the store refuse the second.
3. Passwords lie here as Argon2id strings only; a password longer than the cap is refused before
   any hashing, and none is ever cut short.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from kagimori.crypto.digests import random_id
from kagimori.errors import ConfigError
from kagimori.storage.store import ABSENT, Change, Collection, Document, Put

USER_ID_PREFIX: Final = "usr_"
"""
Begins every user's id and no client's, so that the ``sub`` of a client can never be a user's
(requirements TOK-13).
"""

MAX_USERNAME: Final = 128
"""The most characters of a username."""


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One user.

    Attributes:
        id: the ``sub`` of tokens.
        username: what the user types, as entered when it was made.
        created: when the user was made.
        password_hash: an Argon2id PHC string; ``None``: no password is set.
        name: what people call the user.
        epoch: raised by whatever ends all earlier sign-ins; families carry the epoch of theirs.
        disabled: whether nothing works for the user any more.
    """

    id: str
    username: str
    created: datetime
    password_hash: str | None = None
    name: str = ""
    epoch: int = 0
    disabled: bool = False

    def __repr__(self) -> str:
        return f"User(id={self.id!r}, username={self.username!r})"


class Username(msgspec.Struct, frozen=True):
    """
    Says whose a username is.
    """

    user: str


def username_key(username: str) -> str:
    """
    Return the form under which a username is unique: NFKC, case folded.
    """
    return unicodedata.normalize("NFKC", username).casefold()


def is_username(text: str) -> bool:
    """
    Return whether a text may be a username: 1 to 128 printable characters, no space at the ends.
    """
    return 0 < len(text) <= MAX_USERNAME and text.isprintable() and text == text.strip()


def new_user(
    username: str, *, now: datetime, password_hash: str | None = None, name: str = ""
) -> User:
    """
    Return a user with a fresh id.

    Raises:
        ConfigError: the username cannot be one.
    """
    if not is_username(username):
        raise ConfigError(
            f"A username has 1 to {MAX_USERNAME} printable characters, no space at the ends."
        )
    return User(
        id=USER_ID_PREFIX + random_id(),
        username=username,
        created=now,
        password_hash=password_hash,
        name=name,
    )


def creation(user: User) -> tuple[Change, ...]:
    """
    Return the changes that make a user and take its username, or nothing.

    The commit raises `kagimori.errors.ConflictError` where the username is somebody's already.
    """
    return (
        USERS.put(user.id, user, ABSENT),
        USERNAMES.put(username_key(user.username), Username(user=user.id), ABSENT),
    )


def _user_indexes(user: User) -> Mapping[str, str]:
    return {"username": username_key(user.username)}


def _username_indexes(username: Username) -> Mapping[str, str]:
    return {"user": username.user}


USERS: Collection[User] = Collection("user", User, indexes=_user_indexes)
USERNAMES: Collection[Username] = Collection(
    "username", Username, indexes=_username_indexes
)


def raise_epoch(document: Document) -> Put:
    """
    Return the change that ends every earlier sign-in of the user that a document holds.

    Raises:
        StoreError: the document cannot be read.
    """
    found = USERS.decode(document)
    later = msgspec.structs.replace(found.value, epoch=found.value.epoch + 1)
    return USERS.put(found.id, later, found.version)
