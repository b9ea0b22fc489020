"""
Whether a presented secret is somebody's: clients' secrets and users' passwords alike.

Rules of this module:

1. Only a first or a wrong secret costs a hash. What was good is remembered in memory, as an
   HMAC under a random key of this process, never as text.
2. The version of the stored document is part of what is remembered, so a changed client or
   user drops its memories by itself.
3. The limits on failures are asked before any hashing. Beyond them only credentials that were
   good from the same address lately still pass (TOK-16).
4. The same guess made many times at once is hashed once; each guess counts as one attempt from
   the moment it begins, so guesses made at once cannot outrun the limits.
5. A refusal costs one hash whatever its reason: unknown, no secret, wrong secret.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from kagimori.crypto.digests import HmacKey, equal, random_bytes, sha256
from kagimori.crypto.passwords import MAX_SECRET_BYTES
from kagimori.errors import ThrottledError
from kagimori.identity.hashing import HashPool

SHA256_PREFIX: Final = "sha256:"
"""Marks the digest of a generated secret."""

CAPACITY: Final = 10_000
"""How many good credentials are remembered."""

LATELY: Final = timedelta(hours=1)
"""For how long an address that a credential was good from is exempt from the limits."""

_PLACES = 16


class Subject(NamedTuple):
    """
    Whose secret is presented.

    Attributes:
        kind: ``client`` or ``account``.
        tenant: in which tenant.
        id: the name that was presented, known or not.
    """

    kind: str
    tenant: str
    id: str


class Stored(NamedTuple):
    """
    The digest of a secret as it is stored.

    Attributes:
        digest: ``sha256:`` and hexadecimal digits, or an Argon2id PHC string.
        expires: from when on it is refused.
    """

    digest: str
    expires: datetime | None = None


class Attempt(NamedTuple):
    """
    Somebody shows a secret.

    Attributes:
        subject: whose it is said to be; limits count by this name.
        secret: what is shown.
        address: where the attempt comes from.
        now: when it was made.
    """

    subject: Subject
    secret: str
    address: str
    now: datetime

    def __repr__(self) -> str:
        return f"Attempt(subject={self.subject!r})"


class Limiter(Protocol):
    """
    Counts failures, and says when there were too many.
    """

    def wait(self, subject: Subject, address: str, now: datetime) -> int:
        """
        Return for how many seconds no attempt may be made; 0 when one may be made now.
        """
        ...

    def begin(self, subject: Subject, address: str) -> None:
        """
        Count an attempt whose outcome is not known yet.
        """
        ...

    def end(self, subject: Subject, address: str) -> None:
        """
        Take back what `begin` counted.
        """
        ...

    def failed(self, subject: Subject, address: str, now: datetime) -> None:
        """
        Count a failure.
        """
        ...


def digest_of_generated(secret: str) -> str:
    """
    Return the stored form of a generated secret of 256 bits: no slow hash is needed for it.
    """
    return SHA256_PREFIX + sha256(secret.encode()).hex()


class CredentialCheck:
    """
    Checks secrets against their digests, under the limits, with a memory of good ones.

    Args:
        pool: hashes chosen secrets.
        limiter: counts failures.
        capacity: how many good credentials are remembered.
    """

    def __init__(
        self, pool: HashPool, limiter: Limiter, *, capacity: int = CAPACITY
    ) -> None:
        self._pool = pool
        self._limiter = limiter
        self._capacity = capacity
        self._key = HmacKey(random_bytes(32))
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[Stored | None]] = {}

    @property
    def remembered(self) -> int:
        """
        How many good credentials are remembered.
        """
        return len(self._known)

    async def match(
        self, attempt: Attempt, version: int, stored: Sequence[Stored]
    ) -> Stored | None:
        """
        Return the digest that the shown secret fits, or ``None``.

        Args:
            version: the version of the subject's document, 0 for an unknown one.
            stored: the subject's digests; empty for an unknown one.

        Raises:
            ThrottledError: too many failures.
            BusyError: too many secrets are being hashed.
        """
        subject, secret, address, now = attempt
        try:
            # The secret stands last and nothing before it holds a NUL, so that no two
            # different credentials make one message.
            message = "\0".join((*subject, str(version), secret)).encode()
        except UnicodeEncodeError:
            self._limiter.failed(subject, address, now)
            return None
        mark = self._key.digest(message)
        known = self._known.get(mark)
        if known is not None and not known.holds(now):
            del self._known[mark]
            known = None
        wait = self._limiter.wait(subject, address, now)
        if known is not None:
            if wait and not known.was_good_from(address, now):
                raise _throttled(wait)
            known.remember(address, now)
            self._known.move_to_end(mark)
            return known.stored
        while (running := self._running.get(mark)) is not None:
            # Whoever made the guess first may hang up; then the next in line makes it.
            await asyncio.wait({running})
            if not running.cancelled():
                return self._settle(mark, running.result(), attempt)
        if wait:
            raise _throttled(wait)
        return self._settle(mark, await self._judge(mark, attempt, stored), attempt)

    async def refuse(self, attempt: Attempt) -> None:
        """
        Count a failure that needed no secret to be found out, at the cost of one.

        Raises:
            ThrottledError: too many failures.
            BusyError: too many secrets are being hashed.
        """
        subject, _, address, now = attempt
        wait = self._limiter.wait(subject, address, now)
        if wait:
            raise _throttled(wait)
        self._limiter.begin(subject, address)
        try:
            await self._pool.waste()
        finally:
            self._limiter.end(subject, address)
        self._limiter.failed(subject, address, now)

    def forget(self) -> None:
        """
        Drop every memory.
        """
        self._known.clear()

    async def _judge(
        self, mark: bytes, attempt: Attempt, stored: Sequence[Stored]
    ) -> Stored | None:
        running: asyncio.Future[Stored | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._running[mark] = running
        self._limiter.begin(attempt.subject, attempt.address)
        try:
            found = await self._verify(stored, attempt.secret, attempt.now)
        except BaseException:
            running.cancel()
            raise
        finally:
            del self._running[mark]
            self._limiter.end(attempt.subject, attempt.address)
        running.set_result(found)
        return found

    async def _verify(
        self, stored: Sequence[Stored], secret: str, now: datetime
    ) -> Stored | None:
        encoded = secret.encode()
        if len(encoded) > MAX_SECRET_BYTES:
            return None
        fingerprint = SHA256_PREFIX + sha256(encoded).hex()
        chosen: list[Stored] = []
        generated: Stored | None = None
        for each in stored:
            if each.expires is not None and each.expires <= now:
                continue
            if not each.digest.startswith(SHA256_PREFIX):
                chosen.append(each)
            elif equal(each.digest, fingerprint):
                generated = each
        if generated is not None:
            return generated
        for each in chosen:
            if await self._pool.verify(each.digest, secret):
                return each
        if not chosen:
            await self._pool.waste()
        return None

    def _settle(
        self, mark: bytes, found: Stored | None, attempt: Attempt
    ) -> Stored | None:
        if found is None:
            self._limiter.failed(attempt.subject, attempt.address, attempt.now)
            return None
        known = self._known.get(mark)
        if known is None:
            known = self._known[mark] = _Known(found)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        known.remember(attempt.address, attempt.now)
        return found


class _Known:
    """
    A credential that was good, and where it was good from lately.
    """

    __slots__ = ("_places", "stored")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._places: dict[str, datetime] = {}

    def holds(self, now: datetime) -> bool:
        """
        Whether the secret has not expired since it was remembered.
        """
        expires = self.stored.expires
        return expires is None or now < expires

    def was_good_from(self, address: str, now: datetime) -> bool:
        """
        Whether the credential was good from an address within `LATELY`.
        """
        then = self._places.get(address)
        return then is not None and now - then <= LATELY

    def remember(self, address: str, now: datetime) -> None:
        """
        Note that the credential was good from an address.
        """
        places = self._places
        places[address] = now
        if len(places) > _PLACES:
            del places[next(iter(places))]


def _throttled(wait: int) -> ThrottledError:
    return ThrottledError(
        "Too many attempts failed; try again later.", retry_after=wait
    )
