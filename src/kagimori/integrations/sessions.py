"""
Sessions that lie in a protected cookie, for any framework.

Rules of this module:

1. A session that cannot be read is empty; one whose ring cannot be asked is an error, and the
   face answers 503: nobody is signed out by an outage.
2. It is written when its content changed, when its key is no longer the current one, and when
   a tenth of its life has passed. A request that only looks writes nothing, so that late
   answers do not undo what others wrote meanwhile.
3. Whoever signs in gets a new id (session fixation), and what is bound to the old one, such as
   a CSRF token, ends with it.
4. Where sessions are moved from what a server kept of them, that ends too when the id does:
   whoever has the old cookie would else be signed in on.
5. An answer that depends on the session says so to caches, and one that sets it is not stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from kagimori.clock import from_seconds
from kagimori.errors import ConfigError
from kagimori.integrations.cookies import (
    Cookie,
    ProtectedCookie,
    Reading,
    SetCookie,
)
from kagimori.integrations.session import Record, Session
from kagimori.keys.protection.ring import ProtectionRing

__all__ = [
    "ABSOLUTE",
    "LIFETIME",
    "Answer",
    "OldSessions",
    "Session",
    "Sessions",
    "StoredSessions",
]

LIFETIME = timedelta(days=14)
ABSOLUTE = timedelta(days=90)
_SLIDE = 10


class OldSessions(Protocol):
    """
    Reads the session cookie that an application had before.
    """

    def read(self, cookies: Mapping[str, str]) -> dict[str, Any] | None:
        """
        Return what the old cookie holds; ``None`` for nothing, or nothing good.
        """
        ...

    def expire(self, cookies: Mapping[str, str]) -> tuple[SetCookie, ...]:
        """
        Return what makes the browser forget the old cookie, where it is there.
        """
        ...


@runtime_checkable
class StoredSessions(OldSessions, Protocol):
    """
    Old sessions that are kept on the server, under the id in their cookie.

    Over ASGI both methods are called in the event loop: they must not wait there.
    """

    def id_of(self, cookies: Mapping[str, str]) -> str | None:
        """
        Return the old session's id; ``None`` where there is none to end.
        """
        ...

    def end(self, session_id: str) -> None:
        """
        Delete what is kept of a session, if it is still there.
        """
        ...


S = TypeVar("S", bound=Session)


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a response has to say of the session.

    Attributes:
        set_cookies: to be set, in order.
        depends: whether caches have to know that the response depends on the cookie.
    """

    set_cookies: tuple[SetCookie, ...] = ()
    depends: bool = False


class Sessions:
    """
    Reads sessions from requests, and says what responses set. Safe to share between threads.

    Args:
        cookie: its name and attributes.
        lifetime: how long a session lasts without a request.
        absolute: how long it lasts at most after the sign-in; ``None`` for as long as it is used.
        old: readers of the cookies that sessions are moved from.

    Raises:
        ConfigError: a time is not positive.
    """

    def __init__(
        self,
        ring: ProtectionRing,
        cookie: Cookie | None = None,
        *,
        lifetime: timedelta = LIFETIME,
        absolute: timedelta | None = ABSOLUTE,
        old: Sequence[OldSessions] = (),
    ) -> None:
        if lifetime <= timedelta() or (
            absolute is not None and absolute <= timedelta()
        ):
            raise ConfigError("A session's lifetime is longer than nothing.")
        self.cookie = cookie or Cookie()
        self.ring = ring
        self._lifetime = lifetime
        self._absolute = absolute
        self._old = tuple(old)
        # A session may have a longer life of its own; the record says so.
        self._jar = ProtectedCookie(ring, self.cookie, purpose="session", lifetime=None)

    def read(self, cookies: Mapping[str, str], kind: type[S]) -> S:
        """
        Return the session of a request's cookies; an empty one for nothing, or nothing good.

        Args:
            kind: `Session`, or a class of a framework that is one.

        Raises:
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        return self._session(self._jar.read(cookies), cookies, kind)

    def read_at_hand(self, cookies: Mapping[str, str], kind: type[S]) -> S | None:
        """
        Do what `read` does without ever waiting; ``None`` if it would have to: for event loops.

        Raises:
            ProtectionError: as `read`.
        """
        reading = self._jar.read_at_hand(cookies)
        return None if reading is None else self._session(reading, cookies, kind)

    def answer(self, session: Session, *, persistent: bool | None = None) -> Answer:
        """
        Return what the response to a request has to say.

        What the server kept of a session that this one was moved from is deleted here, once
        its id was renewed.

        Args:
            persistent: whether the cookie outlives the browser's session; left out: as the
                cookie says.

        Raises:
            TypeError: the session holds something that has no place in JSON.
            CookieTooLargeError: it holds too much.
            KeyRingError: it changed, and no key can protect it now.
        """
        answer = self._answer(session, persistent=persistent)
        # Only now: a change that cannot be kept must not cost the old session.
        if session.ended is not None:
            for old in self._old:
                if isinstance(old, StoredSessions):
                    old.end(session.ended)
        return answer

    def of_text(self, text: str | None) -> Session:
        """
        Return the session of a cookie's text; an empty one for nothing, or nothing good.

        Raises:
            ProtectionError: as `read`.
        """
        reading = self._jar.read_text(text) if text else Reading()
        return self._session(reading, {}, Session)

    def text_of(self, session: Session) -> str:
        """
        Return the text of a session's cookie, before it is split into chunks.

        Raises:
            TypeError: the session holds something that has no place in JSON.
            KeyRingError: no key can protect now.
        """
        record = session.record(self.ring.now())
        return self._jar.write_text(msgspec.json.encode(record))

    def _answer(self, session: Session, *, persistent: bool | None) -> Answer:
        now = self.ring.now()
        changed = session.is_changed
        reading = session.reading
        if session.is_empty:
            # What another slot may know is left alone (rule 4 of `cookies`).
            forgets = changed or (bool(reading.names) and not reading.is_unknown)
            gone = self.cookie.expire(reading.names if forgets else ())
            return _answer((*gone, *session.stale), session)
        if not (changed or self._is_due(session, now)):
            return _answer(session.stale, session)
        if not (changed or self.ring.is_ready):
            return _answer(session.stale, session)  # a renewal can wait
        record = session.record(now)
        set_cookies = self._jar.write(
            msgspec.json.encode(record),
            reading.names,
            lifetime=self._left(record, now),
        )
        if persistent is False:
            set_cookies = tuple(
                each if each.max_age == 0 else SetCookie(*_brief(each))
                for each in set_cookies
            )
        return _answer((*set_cookies, *session.stale), session)

    def _session(
        self, reading: Reading, cookies: Mapping[str, str], kind: type[S]
    ) -> S:
        record = self._record(reading)
        if record is not None:
            # An old cookie beside the new one would sign in again whoever signs out.
            return kind(
                record.content(),
                record=record,
                reading=reading,
                stale=self._stale(cookies),
            )
        reading = Reading(names=reading.names, is_unknown=reading.is_unknown)
        for old in self._old:
            data = old.read(cookies)
            if data is not None:
                origin = old.id_of(cookies) if isinstance(old, StoredSessions) else None
                return kind(
                    data,
                    reading=reading,
                    stale=self._stale(cookies),
                    is_moved=True,
                    origin=origin,
                )
        return kind(reading=reading)

    def _stale(self, cookies: Mapping[str, str]) -> tuple[SetCookie, ...]:
        # The old cookie may have had the new one's name: then it is replaced anyway.
        return tuple(
            each
            for old in self._old
            for each in old.expire(cookies)
            if each.name != self.cookie.name
        )

    def _record(self, reading: Reading) -> Record | None:
        if reading.payload is None:
            return None
        try:
            record = msgspec.json.decode(reading.payload, type=Record)
            record.content()
        except ValueError:  # of another release, perhaps
            return None
        now = self.ring.now()
        issued = reading.issued or now
        if now >= issued + self._lasts(record.lasts):
            return None
        return record if self._left(record, now) > timedelta() else None

    def _lasts(self, own: int | None) -> timedelta:
        return self._lifetime if own is None else timedelta(seconds=own)

    def _left(self, record: Record, now: datetime) -> timedelta:
        lasts = self._lasts(record.lasts)
        if self._absolute is None:
            return lasts
        return min(lasts, from_seconds(record.created) + self._absolute - now)

    def _is_due(self, session: Session, now: datetime) -> bool:
        issued = session.reading.issued
        if session.reading.needs_renewal or issued is None:
            return True
        return now - issued >= self._lasts(session.lasts) / _SLIDE


def _answer(set_cookies: tuple[SetCookie, ...], session: Session) -> Answer:
    return Answer(set_cookies, session.accessed or bool(set_cookies))


def _brief(each: SetCookie) -> tuple[str, str, Cookie, None]:
    return each.name, each.value, each.cookie, None
