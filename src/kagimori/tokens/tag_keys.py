"""
Where families' tag keys come from: made, protected by the ring, and read back.

Rules of this module:

1. What was protected is unprotected and compared before anybody stores it.
2. A tag key that cannot be had logs nobody out: hashes still know the newest tokens, and a
   new key is drawn for what is issued next (requirements B3).
3. The event loop never waits for the ring: a key that is not at hand is asked for in a thread.
   While the ring cannot be asked nobody knows whether a key is lost, so none is replaced:
   with it reuse detection would go. The request may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from kagimori.crypto.digests import equal, random_bytes
from kagimori.errors import KeyRingError, ProtectionError, RingUnreadableError
from kagimori.tokens.family import RefreshTokenFamily, SealedTagKey
from kagimori.tokens.redemption import TagKeys
from kagimori.tokens.refresh_token import TAG_KEY_BYTES, RefreshToken, TagKey

R = TypeVar("R")

MOST_OPENED = 10_000
"""How many tag keys are kept at hand."""

PURPOSES = ("kagimori", "refresh tag key")


class OpenedTagKey(Protocol):
    """
    What unprotecting gives, as `kagimori.keys.protection` defines it.
    """

    @property
    def payload(self) -> bytes:
        """
        Return the plaintext.
        """
        ...

    @property
    def needs_renewal(self) -> bool:
        """
        Whether it should be protected again.
        """
        ...

    @property
    def key_id(self) -> str:
        """
        Return the id of the protection key.
        """
        ...


class TagKeyProtector(Protocol):
    """
    A protector bound to its purposes.
    """

    def protect(self, payload: bytes, /) -> str:
        """
        Protect a payload under the current protection key.
        """
        ...

    def unprotect(self, text: str, /) -> OpenedTagKey:
        """
        Return what was protected; may wait for the ring.
        """
        ...

    def unprotect_at_hand(self, text: str, /) -> OpenedTagKey | None:
        """
        Return what was protected; ``None`` where that takes waiting.
        """
        ...

    def protects(self, key_id: str, /) -> bool | None:
        """
        Whether a protection key protects at present; ``None`` where it may not be used.
        """
        ...


class TagKeyRoot(Protocol):
    """
    Where protectors come from: a protection ring, or a protector of it.
    """

    def protector(self, *purposes: str) -> TagKeyProtector:
        """
        Return a protector for a chain of purposes.
        """
        ...


class TagKeyring:
    """
    The tag keys of all tenants.

    Args:
        root: where protectors come from.
    """

    def __init__(self, root: TagKeyRoot) -> None:
        self._root = root
        self._protectors: dict[str, TagKeyProtector] = {}
        self.opened = OpenedTagKeys()
        self._looks: dict[str, asyncio.Task[Exception | None]] = {}

    def make(self, tenant: str) -> TagKeys:
        """
        Draw a tag key for a new family.

        Raises:
            KeyRingError: the protection ring cannot protect at the moment.
        """
        key = random_bytes(TAG_KEY_BYTES)
        sealed = _seal(self._protector(tenant), key)
        made = TagKey(key)
        return TagKeys(made, made, sealed)

    def reader(self, tenant: str) -> TagKeyReader:
        """
        Return what reads tag keys for one request, which may decide several times.
        """
        return TagKeyReader(self, self._protector(tenant), tenant)

    async def look(self, tenant: str, sealed: SealedTagKey) -> Exception | None:
        """
        Let the ring get the key of a tag key, in a thread; return why it could not.
        """
        # One look for a protection key serves all who wait, so that they do not fill the pool
        # of threads when a store hangs.
        task = self._looks.get(sealed.protection_key)
        if task is None or task.done():
            protector = self._protector(tenant)
            look = asyncio.to_thread(_failure, protector, sealed.text)
            task = asyncio.create_task(look)
            self._looks[sealed.protection_key] = task
            task.add_done_callback(
                lambda _: self._looks.pop(sealed.protection_key, None)
            )
        # Whoever goes away takes the look from nobody else.
        return await asyncio.shield(task)

    def _protector(self, tenant: str) -> TagKeyProtector:
        found = self._protectors.get(tenant)
        if found is None:
            found = self._root.protector(*PURPOSES, tenant)
            self._protectors[tenant] = found
        return found


class OpenedTagKeys:
    """
    Tag keys that were opened lately, so that a family in use costs one opening only.

    What the ring says of the protection key is asked each time: a revoked one opens nothing.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # The last one used stands last.
        self._known: dict[tuple[str, str], TagKey] = {}

    def get(
        self, tenant: str, sealed: SealedTagKey, protector: TagKeyProtector
    ) -> tuple[TagKey, bool] | None:
        """
        Return a tag key and whether its protection key is the current one, if it is known.
        """
        place = (tenant, sealed.text)
        known = self._known.pop(place, None)
        if known is None:
            return None
        is_current = protector.protects(sealed.protection_key)
        if is_current is None:
            return None
        self._known[place] = known
        return known, is_current

    def put(self, tenant: str, sealed: SealedTagKey, key: TagKey) -> None:
        """
        Remember a tag key that was opened.
        """
        self._known[tenant, sealed.text] = key
        if len(self._known) > MOST_OPENED:
            del self._known[next(iter(self._known))]


class TagKeyReader:
    """
    Reads tag keys for one request.

    What it reads or draws once it gives again, so that a rule which decides twice sees the same.
    """

    __slots__ = ("_drawn", "_lost", "_protector", "_read", "_ring", "_tenant")

    def __init__(
        self, ring: TagKeyring, protector: TagKeyProtector, tenant: str
    ) -> None:
        self._ring = ring
        self._protector = protector
        self._tenant = tenant
        self._read: tuple[str, TagKeys] | None = None
        self._drawn: TagKeys | None = None
        self._lost: set[str] = set()

    async def reading(self, work: Callable[[], Awaitable[R]]) -> R:
        """
        Do what reads tag keys; do it again after each key that had to be got first.

        Raises:
            RingUnreadableError: the ring cannot be asked for a key at the moment.
        """
        while True:
            try:
                return await work()
            except _NotAtHand as away:
                sealed = away.sealed
            error = await self._ring.look(self._tenant, sealed)
            if self._is_at_hand(sealed):
                continue
            if error is None or getattr(error, "transient", False):
                raise RingUnreadableError(
                    "The protection ring cannot be asked for a key at the moment.",
                    hint="Try again in a moment.",
                    detail=getattr(error, "detail", ""),
                )
            self._lost.add(sealed.text)

    def of(self, sealed: SealedTagKey) -> TagKeys:
        """
        Return the tag key of a family; with a new one for successors where it is lost.

        Where the ring has turned since, the same key comes protected by the current one, so
        that it moves over with the next write. Called within `reading` only.

        Raises:
            KeyRingError: a key was lost, and the ring cannot protect a new one.
        """
        if self._read is not None and self._read[0] == sealed.text:
            return self._read[1]
        known = self._ring.opened.get(self._tenant, sealed, self._protector)
        if known is not None and known[1]:
            keys = TagKeys(known[0], known[0], sealed)
        else:
            keys = self._unprotect(sealed)
        self._read = (sealed.text, keys)
        return keys

    def proves(self, token: RefreshToken, family: RefreshTokenFamily) -> bool:
        """
        Whether a token was issued in a family, by its tag or by a hash that is kept.

        Called within `reading` only.
        """
        if family.knows(token):
            return True
        try:
            opened = self._open(family.tag_key)
            return token.is_tagged_by(TagKey(opened.payload))
        except (ProtectionError, KeyRingError, ValueError):
            return False

    def _is_at_hand(self, sealed: SealedTagKey) -> bool:
        try:
            return self._protector.unprotect_at_hand(sealed.text) is not None
        except (ProtectionError, KeyRingError):
            return True

    def _open(self, sealed: SealedTagKey) -> OpenedTagKey:
        if sealed.text in self._lost:
            raise ProtectionError("The tag key is lost.")
        opened = self._protector.unprotect_at_hand(sealed.text)
        if opened is None:
            raise _NotAtHand(sealed)
        return opened

    def _unprotect(self, sealed: SealedTagKey) -> TagKeys:
        try:
            opened = self._open(sealed)
            key = TagKey(opened.payload)
        except (ProtectionError, KeyRingError, ValueError):
            if self._drawn is None:
                self._drawn = self._ring.make(self._tenant)
            return TagKeys(None, self._drawn.successors, self._drawn.sealed)
        if opened.needs_renewal:
            sealed = self._renew(opened.payload, sealed)
        self._ring.opened.put(self._tenant, sealed, key)
        return TagKeys(key, key, sealed)

    def _renew(self, key: bytes, sealed: SealedTagKey) -> SealedTagKey:
        try:
            return _seal(self._protector, key)
        except KeyRingError:
            # Nothing forces the move now; the old protection still opens.
            return sealed


class _NotAtHand(Exception):  # noqa: N818 - a signal to `TagKeyReader.reading`
    """
    A tag key has to be got first.
    """

    def __init__(self, sealed: SealedTagKey) -> None:
        super().__init__()
        self.sealed = sealed


def _failure(protector: TagKeyProtector, text: str) -> Exception | None:
    try:
        protector.unprotect(text)
    except (ProtectionError, KeyRingError) as error:
        return error
    return None


def _seal(protector: TagKeyProtector, key: bytes) -> SealedTagKey:
    text = protector.protect(key)
    try:
        opened = protector.unprotect(text)
    except ProtectionError as exc:
        raise _unreadable(exc.detail) from None
    if not equal(opened.payload, key):
        raise _unreadable("what was read back differs")
    return SealedTagKey(text, opened.key_id)


def _unreadable(detail: str) -> RingUnreadableError:
    return RingUnreadableError(
        "The protection ring does not open what it has just protected.",
        hint="Run `kagimori doctor`.",
        detail=detail,
    )
