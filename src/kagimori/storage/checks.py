"""
What every adapter refuses before it touches its database, so that all refuse alike.

Rules of this module:

1. What is refused here is a mistake of the calling code, never of a user: `ValueError`.
2. The messages name kinds and positions, never ids or values: those may come from a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kagimori.storage.store import Change, DocumentKey, Put, Reference

MAX_PAGE = 1000
"""The longest page that `Store.find` gives."""

MAX_KEYS = 32
"""The most documents that one `Store.load_many` reads."""

MAX_BODY = 16 * 1024 * 1024
"""The most bytes that one document has."""


def check_keys(tenant: str, keys: Sequence[DocumentKey | Reference]) -> None:
    """
    Refuse keys that no store can resolve.

    Raises:
        ValueError: there are too many keys, a reference does not point at an earlier key, or
            a text cannot be stored.
    """
    if len(keys) > MAX_KEYS:
        raise ValueError(f"One read takes at most {MAX_KEYS} keys.")
    texts = [tenant]
    for position, key in enumerate(keys):
        if isinstance(key, Reference):
            # Only backwards, so that no two can wait for each other.
            if not 0 <= key.of < position:
                raise ValueError(
                    f"The reference at position {position} must name an earlier one."
                )
            _check_field(key.field)
        else:
            texts.append(key.id)
    _check_text("".join(texts))


def check_changes(tenant: str, changes: Sequence[Change]) -> None:
    """
    Refuse a commit that contradicts itself.

    Raises:
        ValueError: a document is named twice, or a text cannot be stored.
    """
    texts = [tenant]
    if len(changes) > 1 and len({(c.kind, c.id) for c in changes}) < len(changes):
        raise ValueError("One commit names each document once.")
    for change in changes:
        texts.append(change.id)
        if isinstance(change, Put):
            if len(change.body) > MAX_BODY:
                raise ValueError(f"A document has at most {MAX_BODY} bytes.")
            if change.expires is not None and change.expires.tzinfo is None:
                raise ValueError("An expiry is an aware datetime.")
            if change.indexes:
                for field in change.indexes:
                    _check_field(field)
                texts += change.indexes.values()
    _check_text("".join(texts))


def check_page(limit: int) -> None:
    """
    Refuse a page that is empty or too long.

    Raises:
        ValueError: `limit` is not within 1 to `MAX_PAGE`.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"A page holds 1 to {MAX_PAGE} documents.")


@lru_cache(maxsize=1024)
def _check_field(name: str) -> None:
    # Adapters write it into paths between double quotes.
    plain = name and name.isascii() and name.isprintable()
    if not plain or '"' in name or "\\" in name:
        raise ValueError("An index field is named in plain ASCII without quotes.")


def _check_text(text: str) -> None:
    # A lone surrogate has no UTF-8 form; databases would fail on it, each in its own way.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("A name holds text that is not Unicode.") from None
