"""
The sockets that a server listens on, bound by us so that a taken port is told in plain words.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from kagimori.errors import ConfigError
from kagimori.settings import LOOPBACK_NAMES, Settings, is_loopback, parse_listen

DEFAULT_PORT = 3000
ADMIN = ("127.0.0.1", 9464)
BACKLOG = 2048


def bind_public(settings: Settings) -> list[socket.socket]:
    """
    Return the sockets of the public listener.

    Left out, it is the loopback at the issuer's port. ``localhost`` means both loopback
    addresses, where there are both; the demo world always takes both.

    Raises:
        ConfigError: the address cannot be had; the text says why and what to try.
    """
    if settings.server.listen is not None:
        host, port = parse_listen(settings.server.listen)
    else:
        issuer = urlsplit(settings.issuer)
        host = "localhost"
        port = DEFAULT_PORT
        if is_loopback(issuer.hostname or ""):
            port = issuer.port or DEFAULT_PORT
    if host == "localhost" or (settings.demo and host in LOOPBACK_NAMES):
        return _bind_loopback(port)
    if host == "":
        return [_bind("0.0.0.0", port)]  # noqa: S104 - asked for by name
    return [_bind(host, port)]


def bind_admin(settings: Settings) -> list[socket.socket]:
    """
    Return the sockets of the admin listener.

    Where none was named and the usual one is taken, it is a free one.

    Raises:
        ConfigError: the named address cannot be had.
    """
    if settings.server.admin_listen is not None:
        return [_bind(*parse_listen(settings.server.admin_listen))]
    try:
        return [_bind(*ADMIN)]
    except ConfigError:
        return [_bind(ADMIN[0], 0)]


def address_of(listening: socket.socket) -> str:
    """
    Return what a socket listens on as ``HOST:PORT``.
    """
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def close_all(sockets: Sequence[socket.socket]) -> None:
    """
    Close sockets.
    """
    for each in sockets:
        each.close()


def _bind_loopback(port: int) -> list[socket.socket]:
    first = _bind("127.0.0.1", port)
    try:
        second = _bind("::1", first.getsockname()[1])
    except ConfigError as error:
        if error.params.get("reason") == "taken":
            # Somebody else would answer half of the requests to `localhost`.
            first.close()
            raise
        return [first]
    return [first, second]


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(
            f"{host!r} is no address of this machine.",
            hint="Name one, for example --listen 127.0.0.1:3000.",
        ) from None
    listening: socket.socket | None = None
    try:
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        # Taken ports show only here where somebody bound without listening.
        listening.listen(BACKLOG)
    except OSError as exc:
        if listening is not None:
            listening.close()
        raise _refused(host, port, exc) from None
    listening.setblocking(False)  # noqa: FBT003 - its only argument
    return listening


def _refused(host: str, port: int, exc: OSError) -> ConfigError:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if exc.errno == errno.EADDRINUSE:
        return ConfigError(
            f"{where} is taken by another program.",
            hint=f"Choose another port, for example --listen {host}:{port + 1} "
            f"(make serve PORT={port + 1}), or end that program.",
            reason="taken",
        )
    if exc.errno == errno.EACCES:
        return ConfigError(
            f"This user may not listen on {where}.",
            hint="Choose a port above 1023 and put a proxy in front.",
            reason="denied",
        )
    return ConfigError(
        f"{where} cannot be listened on: {exc.strerror}.",
        hint="Name an address of this machine with --listen HOST:PORT.",
        reason="other",
    )
