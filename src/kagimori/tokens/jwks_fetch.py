"""
One request for the keys that an issuer publishes: bounded in size and in time, to the last byte.

Rules of this module:

1. https, or http on a loopback address. No redirect is followed, and no proxy is used: the keys
   come from the address that was given, or not at all.
2. What is not a sound set raises, and says why without quoting it.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from urllib.parse import urlsplit

from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.jwk import JwkSet
from kagimori.crypto.strict_json import parse_object
from kagimori.errors import ConfigError

MAX_BYTES = 512 * 1024
MAX_KEYS = 100

_READ_TYPES = frozenset({"EC", "RSA", "OKP", "oct"})


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


class JwksFetch:
    """
    Fetches the set at an address; one fetch at a time.

    Args:
        url: the ``jwks_uri``.
        ssl_context: for a private certificate authority.
        timeout: seconds that one step takes at most.
        deadline: seconds that all of it takes at most.

    Raises:
        ConfigError: the address is not allowed.
    """

    def __init__(
        self,
        url: str,
        ssl_context: ssl.SSLContext | None,
        timeout: float,
        deadline: float,
    ) -> None:
        check_url(url)
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._is_tls = parts.scheme == "https"
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._deadline = deadline
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
        watchdog = threading.Timer(self._deadline, self._abort)
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
        self._socket = socket.create_connection((self._host, port), self._timeout)
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
