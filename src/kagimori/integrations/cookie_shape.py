"""
The shape of a cookie: its name, its attributes, and the chunks that a long value lies in.

Over 4 KB a value lies in chunks, in ASP.NET Core's manner: ``name=chunks-2``, ``nameC1``,
``nameC2``. Sizes are checked here, before anything is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from kagimori.errors import ConfigError

SameSite: TypeAlias = Literal["Lax", "Strict", "None"]

# RFC 6265 section 6.1 asks for 4096 bytes a cookie, attributes included; the rest is reserve.
_COOKIE_BYTES = 4050
_MOST_NAMES = 100
_MOST_HEADER = 32 * 1024
_BLANKS = " \t"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ATTRIBUTE = re.compile(r"[\x20-\x3A\x3C-\x7E]*")
_COUNT = re.compile(r"chunks-([1-9][0-9]?)")
_CHUNK = re.compile(r"C([1-9][0-9]?)")


class CookieTooLargeError(ConfigError):
    """
    More was to be put into a cookie than its chunks hold.
    """

    code = "cookie.too_large"


class SetsCookies(Protocol):
    """
    A response of Starlette, FastAPI, Flask or Django.
    """

    def set_cookie(
        self,
        key: str,
        value: str = ...,
        max_age: int | None = ...,
        *,
        path: str = ...,
        domain: str | None = ...,
        secure: bool = ...,
        httponly: bool = ...,
        samesite: SameSite | None = ...,
    ) -> object:
        """
        Add a cookie to the response.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """
    The name and the attributes of a cookie, and how much it may hold.

    Attributes:
        name: with ``__Host-``, which browsers accept over https, for one host and ``/`` only.
        persistent: whether it outlives the browser's session.
        most_chunks: how many cookies of 4 KB one value may fill.
        most_bytes: how long a request's whole ``Cookie`` header may be before it is ignored.

    Raises:
        ConfigError: the name's prefix, or ``SameSite=None``, demands other attributes.
    """

    name: str = "__Host-session"
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    http_only: bool = True
    same_site: SameSite = "Lax"
    persistent: bool = True
    most_chunks: int = 4
    most_bytes: int = _MOST_HEADER

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError("A cookie's name is a token of RFC 6265.")
        if not all(map(_ATTRIBUTE.fullmatch, (self.path, self.domain or ""))):
            raise ConfigError("A cookie's path or domain holds a forbidden character.")
        prefix = self.name.lower()
        if prefix.startswith("__host-") and not (
            self.secure and self.path == "/" and self.domain is None
        ):
            raise ConfigError(
                "A __Host- cookie is secure, has the path / and no domain.",
                hint="For development over plain http use Cookie.for_plain_http().",
            )
        if prefix.startswith("__secure-") and not self.secure:
            raise ConfigError("A __Secure- cookie is secure.")
        if self.same_site == "None" and not self.secure:
            raise ConfigError("A cookie with SameSite=None is secure.")
        if not 1 <= self.most_chunks < _MOST_NAMES:
            raise ConfigError("A cookie has from 1 to 99 chunks.")

    @classmethod
    def for_plain_http(cls, name: str = "session") -> Cookie:
        """
        Return a cookie that is sent over plain http: for development, and for nothing else.
        """
        return cls(name=name, secure=False)

    def split(self, text: str, max_age: int | None) -> tuple[tuple[str, str], ...]:
        """
        Return names and values of the cookies that hold a text.

        Raises:
            CookieTooLargeError: there would be too many of them.
        """
        room = _COOKIE_BYTES - len(
            SetCookie(f"{self.name}C99", "", self, max_age).header
        )
        count = -(-len(text) // room)
        if count <= 1:
            return ((self.name, text),)
        if count > self.most_chunks:
            raise CookieTooLargeError(
                f"The cookie {self.name} would hold {len(text)} bytes in {count} chunks, and "
                f"{self.most_chunks} are its limit.",
                hint="Keep large things on the server, and their ids in the cookie.",
            )
        chunks = (
            (f"{self.name}C{number + 1}", text[number * room : (number + 1) * room])
            for number in range(count)
        )
        return ((self.name, f"chunks-{count}"), *chunks)

    def join(self, cookies: Mapping[str, str]) -> str | None:
        """
        Return the text that the cookies hold; ``None`` if there is none, or it is not whole.
        """
        first = cookies.get(self.name)
        found = _COUNT.fullmatch(first) if first else None
        if found is None:
            return first if first and len(first) <= _COOKIE_BYTES else None
        count = int(found[1])
        if count > self.most_chunks:
            return None
        parts = [cookies.get(f"{self.name}C{n + 1}", "") for n in range(count)]
        whole = all(0 < len(part) <= _COOKIE_BYTES for part in parts)
        return "".join(parts) if whole else None

    def names_in(self, cookies: Iterable[str]) -> tuple[str, ...]:
        """
        Return which of a request's cookies are this one's, left-over chunks included.
        """
        size = len(self.name)
        return tuple(
            name
            for name in cookies
            if name == self.name
            or (name.startswith(self.name) and _CHUNK.fullmatch(name, size))
        )

    def lay(
        self, text: str, max_age: int | None, present: Iterable[str] = ()
    ) -> tuple[SetCookie, ...]:
        """
        Return the cookies to set for a text, and the present ones to expire.

        Raises:
            CookieTooLargeError: see `split`.
        """
        max_age = max_age if self.persistent else None
        parts = self.split(text, max_age)
        kept = {name for name, _ in parts}
        return (
            *(SetCookie(name, value, self, max_age) for name, value in parts),
            *self.expire(name for name in present if name not in kept),
        )

    def expire(self, names: Iterable[str]) -> tuple[SetCookie, ...]:
        """
        Return the cookies to set so that the browser forgets these.
        """
        return tuple(SetCookie(name, "", self, 0) for name in names)


@dataclass(frozen=True, slots=True)
class SetCookie:
    """
    One ``Set-Cookie`` of a response.
    """

    name: str
    value: str = field(repr=False)
    cookie: Cookie
    max_age: int | None

    @property
    def header(self) -> str:
        """
        The value of the header.
        """
        parts = [f"{self.name}={self.value}", f"Path={self.cookie.path}"]
        if self.max_age is not None:
            parts.append(f"Max-Age={self.max_age}")
        if self.cookie.domain:
            parts.append(f"Domain={self.cookie.domain}")
        parts += ["Secure"] * self.cookie.secure + ["HttpOnly"] * self.cookie.http_only
        parts.append(f"SameSite={self.cookie.same_site}")
        return "; ".join(parts)

    def set_on(self, response: SetsCookies) -> None:
        """
        Set it on a framework's response.
        """
        response.set_cookie(
            self.name,
            self.value,
            self.max_age,
            path=self.cookie.path,
            domain=self.cookie.domain,
            secure=self.cookie.secure,
            httponly=self.cookie.http_only,
            samesite=self.cookie.same_site,
        )


def parse(
    headers: Iterable[bytes | str], most_bytes: int = _MOST_HEADER
) -> dict[str, str]:
    """
    Return the cookies of a request's ``Cookie`` headers; none if they are too long.

    Of a name that comes twice, the first counts: browsers send the more specific path first.
    A name is taken as the browser sent it, or not at all (RFC 6265 section 4.1.1): browsers
    guard ``__Host-session``, and not what becomes it once more than blanks is stripped, as
    some frameworks do with U+00A0 or U+2000 (attack: a sibling host sets that cookie).

    Args:
        headers: as they came; text is that of WSGI, one character for each byte.
    """
    lines = [_octets(line) for line in headers]
    if sum(map(len, lines)) > most_bytes:
        return {}
    cookies: dict[str, str] = {}
    for pair in b";".join(lines).decode("latin-1").split(";"):
        name, equals, value = pair.partition("=")
        name = name.strip(_BLANKS)
        if equals and _NAME.fullmatch(name):
            cookies.setdefault(name, value.strip(_BLANKS))
    return cookies


def _octets(line: bytes | str) -> bytes:
    # What no byte stands for becomes a question mark, which no name contains.
    return line.encode("latin-1", "replace") if isinstance(line, str) else line
