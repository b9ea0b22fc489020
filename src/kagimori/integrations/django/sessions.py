"""
Django's session engine on a ring: ``SESSION_ENGINE = "kagimori.integrations.django.sessions"``.

A session lies in its cookie, and its `session_key` is what lies there. It holds what
`kagimori.integrations.packing` says.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.base import SessionBase

from kagimori.errors import ProtectionError
from kagimori.integrations.django.ring import sessions
from kagimori.integrations.sessions import Session


class SessionStore(SessionBase):
    """
    One session. The middleware lays it in cookies.
    """

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._session_key: str | None
        self.accessed: bool
        self._session_of_ring: Session | None = None

    @property
    def ring_session(self) -> Session:
        """
        The session as the ring knows it.

        Raises:
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        if self._session_of_ring is None:
            self._session_of_ring = sessions().of_text(self.session_key)
        return self._session_of_ring

    def begin(self, session: Session) -> None:
        """
        Take the session that the middleware read.
        """
        self._session_of_ring = session
        self._session_cache = session.content()
        if session.is_new:
            self._session_key = None

    def load(self) -> dict[str, Any]:
        """
        Return what the session holds; an empty one for a bad cookie.

        Raises:
            ProtectionError: the ring could not be asked at the moment; it is `transient`.
        """
        session = self.ring_session
        if session.is_new:
            self._session_key = None
        return session.content()

    def content(self) -> dict[str, Any]:
        """
        Return the entries, without noting that the response depends on them.
        """
        accessed = self.accessed
        entries: dict[str, Any] = self._get_session()
        self.accessed = accessed
        return entries

    async def aload(self) -> dict[str, Any]:
        """
        Do what `load` does.
        """
        return self.load()

    def create(self) -> None:
        """
        Begin a session, which is set with the response.
        """
        self._new_id()

    async def acreate(self) -> None:
        """
        Do what `create` does.
        """
        self.create()

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002  Django's
        """
        Lay the session in its key, under the ring's current key.

        Raises:
            TypeError: it holds something that has no place in JSON.
            KeyRingError: no key can protect now.
        """
        session = self.ring_session
        session.replace(self._get_session(no_load=must_create))
        # At least eight characters, as Django asks: else it takes it for none.
        self._session_key = sessions().text_of(session)
        self.modified = True

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """
        Do what `save` does.
        """
        self.save(must_create=must_create)

    def exists(self, session_key: str | None = None) -> bool:
        """
        Return ``False``: nobody else has this session.
        """
        return False

    async def aexists(self, session_key: str | None = None) -> bool:
        """
        Do what `exists` does.
        """
        return False

    def delete(self, session_key: str | None = None) -> None:
        """
        Forget everything.
        """
        self._new_id()
        self._session_key = None
        self._session_cache = {}

    async def adelete(self, session_key: str | None = None) -> None:
        """
        Do what `delete` does.
        """
        self.delete(session_key)

    def cycle_key(self) -> None:
        """
        Give the session another id, as Django does at a sign-in (session fixation).
        """
        self._new_id()
        self.save()

    async def acycle_key(self) -> None:
        """
        Do what `cycle_key` does.
        """
        self.cycle_key()

    def _new_id(self) -> None:
        try:
            self.ring_session.renew_id()
        except ProtectionError:
            # What cannot be read is not needed for a new one.
            self._session_of_ring = Session()
        self.modified = True

    @classmethod
    def clear_expired(cls) -> None:
        """
        Do nothing: sessions lie in browsers.
        """

    @classmethod
    async def aclear_expired(cls) -> None:
        """
        Do nothing, likewise.
        """
