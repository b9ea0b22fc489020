"""
The addresses by which stores and wrappers are named: parsed once, the same way everywhere.

    scheme:rest            scheme://user:password@host:port/path?option=value&option=value

Rules of this module:

1. Special characters in every part are percent-encoded; a plus is a plus.
2. No error, name or repr shows a password, an option's value or a query: each may be secret.
3. A secret is better named than written: ``token-env=NAME`` and ``token-file=/path`` stand for
   ``token=…`` wherever an adapter asks for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kagimori.errors import ConfigError
from kagimori.secret_sources import from_environment, from_file

_SECRET_WAYS = ("", "-env", "-file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """
    An address, taken apart.

    Attributes:
        scheme: what stands before the first colon, in lower case.
        rest: what stands between that colon and the query, verbatim.
        authority: host and port as written, without user and password; empty without ``//``.
        path: what follows the authority, decoded.
        options: the query's values by name, decoded.
    """

    scheme: str
    rest: str = field(repr=False)
    authority: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str = ""
    port: int | None = None
    path: str = ""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Take an address apart.

        Raises:
            ConfigError: it has no scheme, an impossible port, or a fragment.
        """
        scheme, colon, after = text.partition(":")
        if not colon or not scheme.isascii() or not scheme.replace("-", "").isalnum():
            raise ConfigError(
                "An address begins with its kind and a colon.",
                hint="Such as file:///folder or passphrase:file:/path.",
            )
        rest, _, query = after.partition("?")
        if "\x00" in unquote(after) or "#" in after:
            raise ConfigError(
                f"The {scheme}: address holds a character that has to be percent-encoded."
            )
        try:
            parts = urlsplit(f"//{rest[2:]}" if rest.startswith("//") else "")
            port = parts.port
        except ValueError:
            raise ConfigError(
                f"Host and port of the {scheme}: address are malformed."
            ) from None
        return cls(
            scheme=scheme.lower(),
            rest=rest,
            authority=parts.netloc.rpartition("@")[2],
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            host=unquote(parts.hostname or ""),
            port=port,
            path=unquote(parts.path if rest.startswith("//") else rest),
            options=_options(query),
        )

    @property
    def text(self) -> str:
        """
        The address for people, without user, password and options.
        """
        if self.rest.startswith("//"):
            return f"{self.scheme}://{self.authority}{self.path}"
        return f"{self.scheme}:{self.path}"

    def allow(self, *names: str) -> None:
        """
        Refuse options other than these.

        Raises:
            ConfigError: there is another one.
        """
        if set(self.options) - set(names):
            known = ", ".join(sorted(names)) or "none"
            raise ConfigError(
                f"An option of the {self.scheme}: address is not known.",
                hint=f"There are: {known}.",
            )

    def option(self, name: str, default: str | None = None) -> str | None:
        """
        Return the value of an option that may be given once.

        Raises:
            ConfigError: it is given several times.
        """
        values = self.options.get(name, ())
        if len(values) > 1:
            raise ConfigError(
                f"The option {name} of the {self.scheme}: address is given several times."
            )
        return values[0] if values else default

    def secret(self, name: str) -> bytes | None:
        """
        Return a secret from ``name=``, ``name-env=`` or ``name-file=``.

        Raises:
            ConfigError: it is named in several ways, or what is named is not there.
        """
        given = [name + way for way in _SECRET_WAYS if name + way in self.options]
        if len(given) > 1:
            raise ConfigError(
                f"The {name} of the {self.scheme}: address is named in one way only."
            )
        if not given:
            return None
        value = self.option(given[0]) or ""
        if given[0] == name:
            return value.encode()
        if given[0] == f"{name}-env":
            return from_environment(value)
        return from_file(absolute_path(value, f"The file of the {name}"))


def secret_names(name: str) -> tuple[str, ...]:
    """
    Return the options that `Address.secret` looks at, for `Address.allow`.
    """
    return tuple(name + way for way in _SECRET_WAYS)


def absolute_path(text: str, what: str) -> Path:
    """
    Return a decoded path.

    Raises:
        ConfigError: it is not absolute.
    """
    path = Path(text)
    if not path.is_absolute() or "\x00" in text:
        raise ConfigError(f"{what} has to be an absolute path.")
    return path


def _options(query: str) -> dict[str, tuple[str, ...]]:
    options: dict[str, tuple[str, ...]] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        options[name] = (*options.get(name, ()), unquote(value))
    return options
