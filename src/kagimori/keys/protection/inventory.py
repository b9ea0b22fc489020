"""
Which version of which wrapping key guards which key of a ring.
"""

from __future__ import annotations

from datetime import datetime

from kagimori.errors import KagimoriError
from kagimori.keys.protection import descriptor, rewriting
from kagimori.keys.protection.contents import Contents
from kagimori.keys.protection.envelopes import Envelopes, newest_of
from kagimori.keys.protection.key import ProtectionKey
from kagimori.keys.protection.outcomes import GuardedKey
from kagimori.keys.wrapping import WrappedSecret


def inventory(
    contents: Contents, envelopes: Envelopes, now: datetime
) -> tuple[GuardedKey, ...]:
    """
    Say of each key what guards it; nothing is unwrapped for that.

    A vault may be asked once which version is its newest; one that does not answer leaves
    `GuardedKey.is_newest` open.
    """
    newest = None
    if envelopes.wrapper is not None:
        try:
            newest = newest_of(envelopes.wrapper)
        except KagimoriError:
            newest = None
    return tuple(
        _guarded(contents, key, envelopes, newest, now) for key in contents.keys
    )


def _guarded(
    contents: Contents,
    key: ProtectionKey,
    envelopes: Envelopes,
    newest: str | None,
    now: datetime,
) -> GuardedKey:
    found = _key_of(envelopes, *rewriting.envelopes_in(key.stored)[:1])
    is_newest = None if None in (newest, found) else found == newest
    second = contents.recoveries.get(key.id)
    return GuardedKey(
        key.id,
        contents.state_of(key, now),
        key.stored.decryptors,
        found,
        is_newest,
        descriptor.class_name(second.wrapped.decryptor_type) if second else "",
        _key_of(envelopes, second.wrapped) if second else None,
    )


def _key_of(envelopes: Envelopes, *wrapped: WrappedSecret) -> str | None:
    found = envelopes.key_of(wrapped[0]) if wrapped else None
    return None if found is None else found[0]
