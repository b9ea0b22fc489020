"""
The official Python client of Vault, as far as it is needed here.

Its raw adapter is used, not its methods: those drop the ``Retry-After`` of an answer and do not
know ``associated_data``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol

from kagimori.errors import ConfigError

CONNECT_TIMEOUT = 2.0
_MOST_WAIT = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What the server answered.

    Attributes:
        status: of HTTP.
        data: the member ``data`` of the JSON body; empty without one.
        errors: its member ``errors``.
        retry_after: the seconds of that header, which may be a number or a date.
    """

    status: int
    data: Mapping[str, object] = field(default_factory=dict, repr=False)
    errors: tuple[str, ...] = ()
    retry_after: float | None = None


class UntrustedError(OSError):
    """
    The server's certificate is not one to trust.
    """


class VaultClient(Protocol):
    """
    Asks a Vault server.
    """

    def ask(self, path: str, token: bytes, body: Mapping[str, str] | None) -> Answer:
        """
        Post a body, or get without one.

        Raises:
            ConnectionResetError: the connection broke before there was an answer.
            TimeoutError: there was none in time.
            UntrustedError: the server's certificate is not trusted.
            OSError: the server cannot be reached.
            ValueError: the token cannot be sent.
        """
        ...


def connect(
    server: str, *, namespace: str, ca: Path | None, timeout: float
) -> VaultClient:
    """
    Return a client of a server; nothing is sent yet.

    Raises:
        ConfigError: the package is not installed, or there is no such CA file.
    """
    try:
        import requests
        from hvac import adapters
    except ImportError:
        raise ConfigError(
            "Vault needs a package that is not installed.",
            hint="pip install 'kagimori[vault]'",
        ) from None
    if ca is not None and not ca.is_file():
        raise ConfigError(f"{ca} is no file of authorities.", hint="Check ca=.")
    session = requests.Session()
    session.verify = True if ca is None else str(ca)
    # Otherwise a ~/.netrc would add a password of its own.
    session.auth = _unchanged
    # A proxy of the environment is not to see what is meant for this machine, in the clear.
    session.trust_env = not server.startswith("http:")
    adapter = adapters.RawAdapter(
        base_uri=server,
        verify=session.verify,
        timeout=(CONNECT_TIMEOUT, timeout),
        session=session,
        namespace=namespace or None,
        allow_redirects=False,
        ignore_exceptions=True,
    )
    return _Client(adapter)


def _unchanged(request: Any) -> Any:
    return request


class _Client:
    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def ask(self, path: str, token: bytes, body: Mapping[str, str] | None) -> Answer:
        from requests import exceptions

        headers = {"X-Vault-Token": _header(token)}
        try:
            response = (
                self._adapter.get(path, headers=headers)
                if body is None
                else self._adapter.post(path, headers=headers, json=dict(body))
            )
        except exceptions.Timeout:
            raise TimeoutError from None
        except exceptions.SSLError as error:
            # Its text tells why a certificate is not trusted, and holds nothing that was sent.
            is_untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise (UntrustedError if is_untrusted else OSError)("TLS") from None
        except exceptions.ConnectionError:
            raise ConnectionResetError from None
        except exceptions.RequestException as error:
            raise OSError(type(error).__name__) from None
        return _answer(response)


def _header(token: bytes) -> str:
    text = token.decode("ascii", "replace")
    if not text.isprintable() or not text.isascii() or not text or " " in text:
        raise ValueError("token")
    return text


def _answer(response: Any) -> Answer:
    data: Mapping[str, object] = {}
    errors: tuple[str, ...] = ()
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        given = body.get("data")
        data = given if isinstance(given, dict) else {}
        told = body.get("errors")
        errors = tuple(map(str, told)) if isinstance(told, list) else ()
    return Answer(
        int(response.status_code),
        data,
        errors,
        _seconds(response.headers),
    )


def _seconds(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds of ``Retry-After``, a number or a date (RFC 9110 section 10.2.3).
    """
    given = headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        return min(max(0.0, float(given)), _MOST_WAIT)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        # By the server's own clock: ours may stand elsewhere.
        sent = parsedate_to_datetime(headers["Date"])
        left = (parsedate_to_datetime(given) - sent).total_seconds()
        return min(max(0.0, left), _MOST_WAIT)
    return None
