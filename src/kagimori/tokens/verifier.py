"""
Checking access tokens offline (RFC 9068 section 4), without server, store or network.

Rules of this module:

1. One profile for one kind of token: ``typ`` is ``at+jwt``, and all required claims are there
   with their exact types. An ID token, a logout token or an assertion is refused (attack J6).
2. The token chooses nothing: issuers, audiences and algorithms come from the caller, keys
   from the caller's source by ``kid``. ``jwk``, ``jku`` and ``x5u`` are never looked at.
3. One text for one meaning: a member named twice, a float or a text in a time, or any
   non-canonical encoding is refused (attack J8).
4. Outwardly there are two errors: not valid, and expired. The reason is in `detail`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import NoReturn, Self

from kagimori.clock import Clock
from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.jwk import JwkSet
from kagimori.errors import (
    ConfigError,
    ExpiredTokenError,
    InvalidTokenError,
    JoseError,
)
from kagimori.tokens.jwks_source import JwksSource
from kagimori.tokens.verified import VerifiedToken, read_claims

TYPES = frozenset({"at+jwt", "application/at+jwt"})
MAX_LENGTH = 16 * 1024
FUTURE_TOLERANCE = 10
"""How far in the future ``iat`` and ``nbf`` may lie, in seconds (JAT-5)."""

DEFAULT_LEEWAY = timedelta(seconds=30)
GREATEST_LEEWAY = timedelta(seconds=60)


class TokenVerifier:
    """
    Checks the access tokens of one installation. Safe to share between threads.

    Made by `from_keys`, `from_jwks` or `from_jwks_url`, which share these arguments:

    Args:
        issuer: the ``iss`` that is accepted, compared byte for byte; several where an
            installation had earlier addresses.
        audience: the ``aud`` that means us; several where one API has several names. ``None``
            together with `allow_any_audience`.
        algorithms: the accepted ones; left out, every asymmetric algorithm that we know. The
            key narrows them to its own in any case.
        leeway: how long after ``exp`` a token still passes: 0 to 60 seconds.
        allow_any_audience: leave the audience to the caller, who then must look at it.
        clock: asked where `verify` is not given the time; left out, the machine's.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(
        self,
        keys: Callable[[], JwkSet],
        *,
        issuer: str | Iterable[str],
        audience: str | Iterable[str] | None,
        algorithms: Iterable[str] | None = None,
        leeway: timedelta = DEFAULT_LEEWAY,
        allow_any_audience: bool = False,
        clock: Clock | None = None,
        source: JwksSource | None = None,
    ) -> None:
        self._keys = keys
        self._source = source
        self._moment = time.time if clock is None else _posix(clock)
        self._issuers = _names("issuer", issuer)
        self._audiences = (
            frozenset() if audience is None else _names("audience", audience)
        )
        if bool(self._audiences) == allow_any_audience:
            raise ConfigError(
                "A verifier needs the audience that it stands for.",
                hint="Give audience=, or allow_any_audience=True and check it yourself.",
            )
        if not timedelta() <= leeway <= GREATEST_LEEWAY:
            raise ConfigError("leeway must be from 0 to 60 seconds.")
        self._leeway = leeway.total_seconds()
        self._algorithms = (
            tuple(ALGORITHMS) if algorithms is None else tuple(algorithms)
        )
        unknown = set(self._algorithms) - set(ALGORITHMS)
        if unknown or not self._algorithms:
            raise ConfigError(
                "An accepted algorithm is not known, or none is named.",
                hint=f"Known are {', '.join(ALGORITHMS)}.",
            )

    @classmethod
    def from_keys(
        cls,
        keys: JwkSet | Callable[[], JwkSet],
        *,
        issuer: str | Iterable[str],
        audience: str | Iterable[str] | None,
        algorithms: Iterable[str] | None = None,
        leeway: timedelta = timedelta(),
        allow_any_audience: bool = False,
        clock: Clock | None = None,
    ) -> Self:
        """
        Verify with keys at hand, such as the server's own ring. The leeway is none by default.

        Args:
            keys: a set, or a function that returns the present one at once.

        Raises:
            ConfigError: an argument is out of its range.
        """
        given = keys
        return cls(
            (lambda: given) if isinstance(given, JwkSet) else given,
            issuer=issuer,
            audience=audience,
            algorithms=algorithms,
            leeway=leeway,
            allow_any_audience=allow_any_audience,
            clock=clock,
        )

    @classmethod
    def from_jwks(
        cls,
        document: Mapping[str, object],
        *,
        issuer: str | Iterable[str],
        audience: str | Iterable[str] | None,
        algorithms: Iterable[str] | None = None,
        leeway: timedelta = DEFAULT_LEEWAY,
        allow_any_audience: bool = False,
        clock: Clock | None = None,
    ) -> Self:
        """
        Verify with the keys of a JWKS document (RFC 7517 section 5), which does not change.

        Raises:
            ConfigError: an argument is out of its range.
            InvalidKeyError: the document, or a key in it, is not acceptable.
        """
        keys = JwkSet.from_dict(document)
        return cls(
            lambda: keys,
            issuer=issuer,
            audience=audience,
            algorithms=algorithms,
            leeway=leeway,
            allow_any_audience=allow_any_audience,
            clock=clock,
        )

    @classmethod
    def from_jwks_url(
        cls,
        url: str,
        *,
        issuer: str | Iterable[str],
        audience: str | Iterable[str] | None,
        algorithms: Iterable[str] | None = None,
        leeway: timedelta = DEFAULT_LEEWAY,
        allow_any_audience: bool = False,
        clock: Clock | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> Self:
        """
        Verify with the keys that an issuer publishes.

        They are fetched by a background thread: at the first use, each hour, and on an
        unknown kid, then at most once in 30 seconds. Only the callers before the first answer
        wait for it. Call `close`, or use the verifier in a ``with``, to end the thread.

        Args:
            url: the ``jwks_uri``: https, or http on a loopback address.
            ssl_context: for a private certificate authority.

        Raises:
            ConfigError: an argument is out of its range, or the address is not allowed.
        """
        source = JwksSource(url, ssl_context=ssl_context)
        return cls(
            source.keys,
            issuer=issuer,
            audience=audience,
            algorithms=algorithms,
            leeway=leeway,
            allow_any_audience=allow_any_audience,
            clock=clock,
            source=source,
        )

    def verify(self, text: str, *, now: datetime | None = None) -> VerifiedToken:
        """
        Return what an access token says, if it is sound, ours to accept, and not over.

        Bounds: a token is over from ``exp`` plus the leeway on.

        Args:
            now: the present instant; left out, the clock's.

        Raises:
            ExpiredTokenError: it was all that, but its time is over.
            InvalidTokenError: it is not; `detail` says why, for the log.
        """
        try:
            verified = jws.verify(
                text,
                self._keys(),
                algorithms=self._algorithms,
                max_length=MAX_LENGTH,
            )
        except JoseError as exc:
            self._ask_for_keys(text)
            raise _refused(exc.text) from None
        header = verified.header
        # `kid` is required (JAT-1): a set of one key must not make it superfluous.
        if header.get("typ") not in TYPES or not header.get("kid"):
            raise _refused("not an access token by its header")
        try:
            token = read_claims(verified.payload)
        except ValueError as exc:
            raise _refused(str(exc)) from None
        typed = token.checked
        if typed.iss not in self._issuers:
            raise _refused("issuer")
        self._check_audience(typed.aud)
        moment = self._moment() if now is None else now.timestamp()
        latest = moment + FUTURE_TOLERANCE
        if typed.iat > latest or typed.nbf > latest:
            raise _refused("from the future")
        if moment >= typed.exp + self._leeway:
            raise ExpiredTokenError("The access token has expired.")
        return token

    def _ask_for_keys(self, text: str) -> None:
        """
        Let the source know of a kid that it does not have (JAT-6); nobody waits for it.
        """
        if self._source is None:
            return
        try:
            kid = jws.peek_header(text, max_length=MAX_LENGTH).get("kid")
        except JoseError:
            return
        if isinstance(kid, str):
            self._source.miss(kid)

    def _check_audience(self, aud: str | tuple[str, ...]) -> None:
        if not self._audiences:
            return
        if isinstance(aud, str):
            accepted = aud in self._audiences
        else:
            accepted = not self._audiences.isdisjoint(aud)
        if not accepted:
            raise _refused("audience")

    @property
    def problem(self) -> str:
        """
        Why the keys of the URL could not be fetched the last time; empty when they could.
        """
        return "" if self._source is None else self._source.problem

    def close(self) -> None:
        """
        End the background thread, if there is one.
        """
        if self._source is not None:
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a verifier is not pickled")


def _posix(clock: Clock) -> Callable[[], float]:
    return lambda: clock.now().timestamp()


def _names(what: str, value: str | Iterable[str]) -> frozenset[str]:
    names = frozenset((value,) if isinstance(value, str) else value)
    if not names or not all(names):
        raise ConfigError(f"A verifier needs at least one {what}, none of them empty.")
    return names


def _refused(why: str) -> InvalidTokenError:
    return InvalidTokenError("The access token is not valid.", detail=why)
