"""
What an address, an issuer or a URL in the settings must be.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, urlsplit

from kagimori.errors import ConfigError, InsecureConfigError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,252})|[0-9a-f:.]{2,45}")
"""A host name or address in lower case, without a port."""

TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""The id of a tenant."""

_SECRETS = frozenset({"password", "passphrase", "secret", "token", "key", "pin"})


def check_issuer(issuer: str) -> None:
    """
    Refuse an issuer that RFC 8414 section 2 does not allow, or that could be written twice.

    Raises:
        ConfigError: the issuer cannot be one.
    """
    parts = urlsplit(issuer)
    try:
        port = parts.port
    except ValueError:
        port = -1
    host = parts.hostname or ""
    canonical = f"[{host}]" if ":" in host else host
    if port not in (None, -1):
        canonical += f":{port}"
    sound = (
        parts.scheme in ("http", "https")
        and HOST.fullmatch(host)
        and canonical == parts.netloc
        and port not in (-1, 0)
        and not parts.query
        and not parts.fragment
        and not issuer.endswith(("/", "?", "#"))
        and "%" not in parts.path
        and "//" not in parts.path
        and issuer.isascii()
        and issuer.isprintable()
        and " " not in issuer
    )
    if not sound:
        raise ConfigError(
            f"The issuer {issuer!r} cannot be used.",
            hint="Give an address such as https://login.example.com: lower case, without a "
            "slash at the end, query, fragment or user.",
            issuer=issuer,
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise InsecureConfigError(
            f"The issuer {issuer!r} is plain http and not on this machine.",
            hint="Use https; plain http is for loopback addresses only (RFC 8414).",
            issuer=issuer,
        )


def is_loopback(host: str) -> bool:
    """
    Whether a host name or address is this machine's loopback.
    """
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_no_password(name: str, url: str) -> None:
    """
    Refuse a URL that holds a literal password: settings hold references only.

    Raises:
        InsecureConfigError: there is one. The text does not repeat it.
    """
    _, _, query = url.partition("?")
    keys = {key.lower() for key, _ in parse_qsl(query, keep_blank_values=True)}
    secret = keys & _SECRETS
    try:
        literal = urlsplit(url).password is not None
    except ValueError:
        raise ConfigError(
            f"The setting {name} is no URL.", hint="See `kagimori init --help`."
        ) from None
    if secret or literal:
        raise InsecureConfigError(
            f"The setting {name} holds a literal password.",
            hint="Name where it is instead: password-env=NAME or password-file=PATH; a "
            "database's password comes from PGPASSFILE or the environment.",
            setting=name,
        )


def parse_listen(text: str) -> tuple[str, int]:
    """
    Return host and port of ``HOST:PORT``, ``[v6]:PORT`` or ``:PORT`` (all addresses).

    Raises:
        ConfigError: it is none of them.
    """
    host, separator, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(
            f"{text!r} is no address to listen on.",
            hint="Write HOST:PORT, for example 127.0.0.1:3000 or [::1]:3000.",
        )
    return host, int(port)
