"""
The keys that an issuer publishes, kept fresh by a background thread.

Rules of this module:

1. Once a set is there nobody waits: it is replaced by a better one, never taken away. A fetch
   that fails, or brings no key, leaves it as it is.
2. At most one fetch runs, and an unknown kid causes one in a cooldown at most, whatever the
   last one brought (attack J15). So a flood of made-up kids is one request in 30 seconds.
3. What a fetch may bring, and from where, is the business of `kagimori.tokens.jwks_fetch`.
"""

from __future__ import annotations

import ssl
import threading
import time
import weakref
from collections.abc import Callable

from kagimori.crypto.jwk import JwkSet
from kagimori.errors import InvalidTokenError
from kagimori.tokens.jwks_fetch import JwksFetch

REFRESH = 3600.0
"""Seconds from one fetch to the next."""

COOLDOWN = 30.0
"""Seconds from one fetch to the earliest that an unknown kid, or a failure, causes."""


class JwksSource:
    """
    The set at one address. Safe to share between threads.

    The thread starts with the first use, so that a process may fork before.

    Args:
        url: the ``jwks_uri``.
        ssl_context: for a private certificate authority.
        timeout: seconds that one step of a fetch, or a caller without any set, waits.
        deadline: seconds that a whole fetch takes at most.
        monotonic: seconds of a clock that never goes back.

    Raises:
        ConfigError: the address is not allowed.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = 5.0,
        deadline: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = _State(monotonic, timeout)
        self._fetch = JwksFetch(url, ssl_context, timeout, deadline)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        # The thread holds the state, not this object: so it ends when nobody uses this.
        self._finalizer = weakref.finalize(self, self._state.close)

    def keys(self) -> JwkSet:
        """
        Return the present set; wait for the first one only.

        Raises:
            InvalidTokenError: there is none, so no token can be called valid.
        """
        state = self._state
        self._run()
        if state.keys is not None:
            if state.is_overdue():
                state.ask()
            return state.keys
        return state.wait_for_first()

    def miss(self, kid: str) -> None:
        """
        Take note that a token names a kid that is not in the set.
        """
        state = self._state
        if state.keys is not None and state.keys.get(kid) is not None:
            return
        if state.has_cooled_down():
            self._run()
            state.ask()

    @property
    def problem(self) -> str:
        """
        Why the last fetch failed; empty when it did not.
        """
        return self._state.problem

    @property
    def fetches(self) -> int:
        """
        How many fetches have ended.
        """
        return self._state.fetches

    def close(self) -> None:
        """
        End the thread. What was fetched stays.
        """
        self._finalizer()

    def _run(self) -> None:
        # A forked child has the object but not the thread.
        thread = self._thread
        if (thread is not None and thread.is_alive()) or self._state.closed:
            return
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(
                target=_keep_fresh,
                args=(self._state, self._fetch),
                name="kagimori-jwks",
                daemon=True,
            )
            self._thread.start()


class _State:
    """
    What callers and the thread share.
    """

    def __init__(self, monotonic: Callable[[], float], timeout: float) -> None:
        self.keys: JwkSet | None = None
        self.problem = ""
        self.fetches = 0
        self.closed = False
        self._monotonic = monotonic
        self._timeout = timeout
        self._changed = threading.Condition()
        self._asked = True
        self._last: float | None = None

    def is_overdue(self) -> bool:
        """
        Whether the hourly fetch should have happened.
        """
        return self._last is not None and self._monotonic() >= self._last + REFRESH

    def has_cooled_down(self) -> bool:
        """
        Whether a fetch may be asked for out of turn.
        """
        return self._last is None or self._monotonic() >= self._last + COOLDOWN

    def ask(self) -> None:
        """
        Wake the thread, unless it has been asked already.
        """
        with self._changed:
            if not self._asked:
                self._asked = True
                self._changed.notify_all()

    def wait_for_first(self) -> JwkSet:
        """
        Wait for the fetch that is under way, if there is no set yet.

        Raises:
            InvalidTokenError: it failed, took too long, or the last one failed just now.
        """
        with self._changed:
            if self._last is not None and self.has_cooled_down():
                self._asked = True
                self._changed.notify_all()
            self._changed.wait_for(
                lambda: self.keys is not None or not self._asked or self.closed,
                self._timeout,
            )
            if self.keys is None:
                raise InvalidTokenError(
                    "The access token cannot be checked: no keys are at hand.",
                    hint="See whether the issuer's JWKS address answers.",
                    detail=self.problem or "no answer yet",
                )
            return self.keys

    def wait_for_turn(self) -> bool:
        """
        Wait until a fetch is due; return whether the thread should go on.
        """
        with self._changed:
            while not self.closed and not self._asked:
                self._changed.wait(self._seconds_left())
                if self._seconds_left() <= 0:
                    self._asked = True
            return not self.closed

    def _seconds_left(self) -> float:
        if self._last is None:
            return 0.0
        # After a failure the next try does not wait for the hour, nor for a caller.
        period = COOLDOWN if self.problem else REFRESH
        return max(0.0, self._last + period - self._monotonic())

    def take(self, keys: JwkSet | None, problem: str) -> None:
        """
        Note the end of a fetch.
        """
        with self._changed:
            if keys is not None:
                self.keys = keys
            self.problem = problem
            self.fetches += 1
            self._last = self._monotonic()
            self._asked = False
            self._changed.notify_all()

    def close(self) -> None:
        """
        Let the thread and whoever waits go.
        """
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def _keep_fresh(state: _State, fetch: Callable[[], JwkSet]) -> None:
    while state.wait_for_turn():
        try:
            keys = fetch()
        except Exception as exc:  # noqa: BLE001 - a thread that died would leave the set stale
            state.take(None, f"{type(exc).__name__}: {exc}"[:200])
        else:
            state.take(keys, "")
