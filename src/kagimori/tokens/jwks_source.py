"""
The keys that an issuer publishes, kept fresh by a background thread.

Rules of this module:

1. Once a set is there nobody waits: it is replaced by a better one, never taken away. A fetch
   that fails, or brings no key, leaves it as it is.
2. At most one fetch runs, and an unknown kid causes one in a cooldown at most, whatever the
   last one brought (attack J15). So a flood of made-up kids is one request in 30 seconds.
3. Bounded in size and in time, to the last byte. No redirect is followed; https, or http on a
   loopback address.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from urllib.parse import urlsplit

from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.jwk import JwkSet
from kagimori.crypto.strict_json import parse_object
from kagimori.errors import ConfigError, InvalidTokenError

REFRESH = 3600.0
"""Seconds from one fetch to the next."""

COOLDOWN = 30.0
"""Seconds from one fetch to the earliest that an unknown kid, or a failure, causes."""

TIMEOUT = 5.0
"""Seconds that one step of a fetch, or a caller without any set, waits."""

DEADLINE = 10.0
"""Seconds that a whole fetch takes at most."""

MAX_BYTES = 512 * 1024

MAX_KEYS = 100

_READ_TYPES = frozenset({"EC", "RSA", "OKP", "oct"})


class JwksSource:
    """
    The set at one address. Safe to share between threads.

    The thread starts with the first use, so that a process may fork before.

    Args:
        url: the ``jwks_uri``.
        ssl_context: for a private certificate authority.
        monotonic: seconds of a clock that never goes back.

    Raises:
        ConfigError: the address is not allowed.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        check_url(url)
        self._state = _State(monotonic)
        self._fetch = _Fetch(url, ssl_context)
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

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.keys: JwkSet | None = None
        self.problem = ""
        self.fetches = 0
        self.closed = False
        self._monotonic = monotonic
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
                lambda: self.keys is not None or not self._asked or self.closed, TIMEOUT
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


# --- fetching ------------------------------------------------------------------------------


def check_url(url: str) -> None:
    """
    Refuse an address from which no keys may come.

    Raises:
        ConfigError: not https, nor http on a loopback address; or it holds a user name, a
            password or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("The JWKS address is malformed.") from None
    allowed = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    if not host or not allowed:
        raise ConfigError(
            "Keys are fetched by https, or by http from a loopback address only.",
            hint="Give the issuer's jwks_uri as it is published.",
        )
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ConfigError("A JWKS address has no user name, password or fragment.")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class _Fetch:
    """
    One request at a time for the set at an address.
    """

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._is_tls = parts.scheme == "https"
        self._ssl_context = ssl_context
        self._socket: socket.socket | None = None

    def __call__(self) -> JwkSet:
        """
        Fetch the set.

        Raises:
            OSError: no answer, or not in time.
            http.client.HTTPException: what answers does not speak HTTP.
            ValueError: not status 200, too long, not JSON, or no key that can be used.
            JoseError: a key is not acceptable, which spoils the set.
        """
        # A server that sends a byte at a time meets every single timeout; this one ends it.
        watchdog = threading.Timer(DEADLINE, self._abort)
        watchdog.daemon = True
        watchdog.start()
        try:
            return _parse(self._read())
        finally:
            watchdog.cancel()
            self._socket = None

    def _read(self) -> bytes:
        connection = self._connect()
        try:
            connection.request(
                "GET",
                self._path,
                headers={
                    "Accept": "application/jwk-set+json, application/json",
                    "Connection": "close",
                    "User-Agent": "kagimori",
                },
            )
            answer = connection.getresponse()
            # A redirect is no 200 either: the keys come from the address that was given.
            if answer.status != http.client.OK:
                raise ValueError(f"status {answer.status}")
            body = answer.read(MAX_BYTES + 1)
        finally:
            connection.close()
        if len(body) > MAX_BYTES:
            raise ValueError("the answer is too long")
        return body

    def _connect(self) -> http.client.HTTPConnection:
        # Connected here, not by http.client, so that the watchdog can end a handshake too.
        port = self._port or (443 if self._is_tls else 80)
        self._socket = socket.create_connection((self._host, port), TIMEOUT)
        if not self._is_tls:
            plain = http.client.HTTPConnection(self._host, port)
            plain.sock = self._socket
            return plain
        context = self._ssl_context or ssl.create_default_context()
        secured = context.wrap_socket(
            self._socket, server_hostname=self._host, do_handshake_on_connect=False
        )
        self._socket = secured
        try:
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        connection = http.client.HTTPSConnection(self._host, port, context=context)
        connection.sock = secured
        return connection

    def _abort(self) -> None:
        found = self._socket
        if found is not None:
            with contextlib.suppress(OSError):
                # Not the TLS way to say goodbye: that would wait for the other side.
                socket.socket.shutdown(found, socket.SHUT_RDWR)


def _parse(body: bytes) -> JwkSet:
    listed = parse_object(body, max_brackets=4 * MAX_KEYS).get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("not a set of keys")
    keys = JwkSet.from_dict({"keys": [key for key in listed if _is_for_us(key)]})
    if len(keys) == 0:
        raise ValueError("no key that can be used")
    if any(key.is_private for key in keys):
        raise ValueError("private keys are published")
    return keys


def _is_for_us(key: object) -> bool:
    """
    Whether a key is to be read: others are for other purposes or times (RFC 7517 section 5).

    A symmetric key is read, and spoils the set (attack J9).
    """
    if not isinstance(key, dict):
        return True
    return (
        key.get("kty") in _READ_TYPES
        and key.get("use", "sig") == "sig"
        and key.get("alg", "ES256") in ALGORITHMS
    )
