"""
How families lie in the store, and what of other documents they depend on.

Rules of this module:

1. A family's document goes 30 days after its end: by then every access token of it is long
   over, and until then "why was I signed out?" has an answer. Reuse detection needs nothing
   beyond: a token of a family that is over, or gone, is refused whatever else it is.
2. Of a user's document two fields are read and none is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from kagimori.errors import StoreError
from kagimori.keys.documents import protection_index
from kagimori.storage.store import (
    ABSENT,
    Change,
    Check,
    Collection,
    Document,
    DocumentKey,
    Put,
    Reference,
    Versioned,
)
from kagimori.tokens.denied import family_denial
from kagimori.tokens.family import EndReason, RefreshTokenFamily
from kagimori.tokens.redemption import UserStanding

RETENTION = timedelta(days=30)
"""How long a family that is over is kept."""

USER_KIND = "user"


class ClientEpoch(msgspec.Struct, frozen=True):
    """
    Raised by whatever ends all earlier sign-ins at a client. Absent, it counts as 0.
    """

    epoch: int
    raised: datetime


class _UserFields(msgspec.Struct, frozen=True):
    epoch: int = 0
    disabled: bool = False


_read_user = msgspec.json.Decoder(_UserFields).decode


def user_client(user: str, client: str) -> str:
    """
    Return the value that stands for a user at a client in an index; no id holds a newline.
    """
    return f"{user}\n{client}"


def _indexes(family: RefreshTokenFamily) -> Mapping[str, str]:
    fields = {
        "user": family.user,
        "client": family.client,
        "user_client": user_client(family.user, family.client),
    }
    # What counts against `max_families`; so a sign-in never reads through revoked ones.
    if family.revoked_at is None:
        fields["seat"] = fields["user_client"]
    field, value = protection_index(family.tag_key.protection_key)
    fields[field] = value
    return fields


def _expires(family: RefreshTokenFamily) -> datetime:
    end = family.idle_deadline
    if family.revoked_at is not None:
        end = min(end, family.revoked_at)
    return end + RETENTION


FAMILIES: Collection[RefreshTokenFamily] = Collection(
    "family", RefreshTokenFamily, indexes=_indexes, expires=_expires
)

CLIENT_EPOCHS: Collection[ClientEpoch] = Collection("client_epoch", ClientEpoch)


def redemption_keys(family_id: str) -> list[DocumentKey | Reference]:
    """
    Name all that a redemption reads, in one round trip.
    """
    return [
        FAMILIES.key(family_id),
        Reference(USER_KIND, 0, "user"),
        Reference(CLIENT_EPOCHS.kind, 0, "client"),
    ]


def user_standing(document: Document | None) -> UserStanding | None:
    """
    Return what a family needs to know of its user; ``None`` where there is none.

    Raises:
        StoreError: the document cannot be read.
    """
    if document is None:
        return None
    try:
        fields = _read_user(document.body)
    except msgspec.DecodeError as exc:
        raise StoreError(
            "A stored user cannot be read.",
            hint="Run `kagimori doctor`; restore the database from a backup.",
            detail=type(exc).__name__,
        ) from None
    return UserStanding(fields.epoch, fields.disabled)


def raised_epoch(put: Put) -> int:
    """
    Return the epoch in a user's document that is about to be written.
    """
    return _read_user(put.body).epoch


def client_epoch(document: Document | None) -> int:
    """
    Return the epoch in a client's epoch document, 0 where there is none.
    """
    found = CLIENT_EPOCHS.maybe(document)
    return 0 if found is None else found.value.epoch


def changes_to_write(
    found: Versioned[RefreshTokenFamily], after: RefreshTokenFamily, now: datetime
) -> tuple[Change, ...]:
    """
    Return the changes that turn a family into its next value.

    A revocation denies the family's access tokens in the same commit.
    """
    put = FAMILIES.put(found.id, after, found.version)
    if after.revoked_at is None or found.value.revoked_at is not None:
        return (put,)
    return (put, family_denial(after, now))


def changes_to_revoke(
    found: Versioned[RefreshTokenFamily], reason: EndReason, now: datetime
) -> tuple[Change, ...]:
    """
    Return the changes that revoke a family; none where it is revoked already.
    """
    after = found.value.revoke(reason, now)
    return () if after is found.value else changes_to_write(found, after, now)


def unchanged(kind: str, id_: str, document: Document | None) -> Check:
    """
    Return the change that lets a commit fail if a document is not what was read.
    """
    return Check(kind, id_, ABSENT if document is None else document.version)
