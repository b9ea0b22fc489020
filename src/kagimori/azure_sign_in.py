"""
Signing in to Azure, and what all clients of Azure have in common here.

Rules of this module:

1. The SDK is imported inside functions: whoever opens a folder does not pay for it.
2. Waiting is bounded: 2 s to connect, 5 s for an answer, two tries at most. What a service says
   by ``Retry-After`` is handed on, not slept through: the ring knows better what to do meanwhile.
3. No message of the SDK's errors of connections is kept: it may quote an address with a
   shared access signature. Codes and classes are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypedDict, TypeVar

from kagimori.errors import ConfigError

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.core.exceptions import AzureError
    from azure.identity import DefaultAzureCredential

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
_SIGN_IN_TOOLS_SECONDS = 10
_MOST_RETRY_AFTER = 3600.0

SIGN_IN_HINT = (
    "On Azure, switch the managed identity of the application on; with a user-assigned one, name "
    "its client id by AZURE_CLIENT_ID or identity=. Elsewhere set AZURE_TENANT_ID, "
    "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or run az login."
)

T = TypeVar("T")


class ClientOptions(TypedDict):
    """
    The keyword arguments that every client of Azure takes from here.
    """

    connection_timeout: float
    read_timeout: float
    retry_total: int
    permit_redirects: bool
    use_env_settings: bool


def client_options(
    read_seconds: float = READ_SECONDS, *, url: str = ""
) -> ClientOptions:
    """
    Return the bounds of a client.

    No retries by the SDK, which may sleep for minutes; and no redirects, which neither service
    has: a token or a signature goes to the address that was configured. For the same reason no
    proxy of the environment is asked for an address over http, an emulator's on this machine:
    it would be sent signatures and keys in the clear.
    """
    return ClientOptions(
        connection_timeout=min(CONNECT_SECONDS, read_seconds),
        read_timeout=read_seconds,
        retry_total=0,
        permit_redirects=False,
        use_env_settings=not url.lower().startswith("http:"),
    )


def missing_package() -> ConfigError:
    """
    Return the error of an installation without Azure's SDK.
    """
    return ConfigError(
        "Azure's client libraries are not installed.",
        hint="pip install 'kagimori[azure]'",
    )


class DefaultSignIn:
    """
    `DefaultAzureCredential`, with bounded waiting.

    It is made anew in each process, and after each failure: it keeps the failure of a managed
    identity's endpoint for a minute, in which that has long recovered.

    Args:
        identity: the client id of a user-assigned managed identity; left out, that of
            ``AZURE_CLIENT_ID``, else the system-assigned identity.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(self, identity: str | None = None) -> None:
        try:
            import azure.identity  # noqa: F401, PLC0415 - rule 1
        except ImportError:
            raise missing_package() from None
        self._identity = identity
        self._made: tuple[int, DefaultAzureCredential] | None = None

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **_: object,
    ) -> AccessToken:
        """
        Return a token, from memory while it lasts.

        Raises:
            ClientAuthenticationError: there is no way to sign in, or none that works.
        """
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - rule 1

        try:
            return self._credential().get_token(
                *scopes, claims=claims, tenant_id=tenant_id, enable_cae=enable_cae
            )
        except AzureError:
            self._made = None
            raise

    def _credential(self) -> DefaultAzureCredential:
        made = self._made
        if made is None or made[0] != os.getpid():
            made = self._made = (os.getpid(), self._make())
        return made[1]

    def _make(self) -> DefaultAzureCredential:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - rule 1

        named = {"managed_identity_client_id": self._identity} if self._identity else {}
        return DefaultAzureCredential(
            connection_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retry_total=1,
            process_timeout=_SIGN_IN_TOOLS_SECONDS,
            **named,
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What went wrong in a call to Azure, without anything secret.

    Attributes:
        status: the HTTP status; ``None`` where there was no answer.
        code: Azure's own code, else the class of the error.
        is_sign_in: whether no token could be had, so that the service was not even asked.
        retry_after: seconds that the service asks to wait.
    """

    status: int | None
    code: str
    is_sign_in: bool = False
    retry_after: float | None = None

    @property
    def is_transient(self) -> bool:
        """
        Whether the same call may succeed later.

        A platform that announces a managed identity provides it: where its endpoint gives none,
        it is not up yet or has no answer at the moment.
        """
        if self.is_sign_in and self.status is None:
            return bool(os.environ.get("IDENTITY_ENDPOINT"))
        return self.status is None or self.status in {408, 429} or self.status >= 500


class AzureCallError(Exception):
    """
    A call to Azure failed; adapters turn it into an error of theirs.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.code)
        self.fault = fault


def _fault_of(error: AzureError) -> Fault:
    from azure.core.exceptions import (  # noqa: PLC0415 - rule 1
        ClientAuthenticationError,
        HttpResponseError,
    )

    kind = type(error).__name__
    if not isinstance(error, HttpResponseError):
        return Fault(None, kind)
    headers: Mapping[str, str] = getattr(error.response, "headers", {})
    is_sign_in = isinstance(error, ClientAuthenticationError)
    # A refusal of Storage is of this class too; what Entra answers has none of its headers.
    is_sign_in &= not {"x-ms-error-code", "x-ms-version"} & {n.lower() for n in headers}
    seconds = retry_after(headers)
    code = headers.get("x-ms-error-code") or ""
    # What stands in our texts is a word of theirs, never a whole message.
    code = code if re.fullmatch("[A-Za-z0-9]{1,64}", code) else kind
    return Fault(error.status_code, code, is_sign_in=is_sign_in, retry_after=seconds)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds of ``Retry-After`` (RFC 9110 section 10.2.3) or of Azure's own form of it.
    """
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001)):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit():
            return min(int(text) * scale, _MOST_RETRY_AFTER)
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _MOST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
        seconds = (date - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), _MOST_RETRY_AFTER)


def ask(call: Callable[[], T], *, tries: int = 1) -> T:
    """
    Make a call to Azure.

    Args:
        tries: how often it is made where there is no answer; 2 only for what changes nothing.

    Raises:
        AzureCallError: it failed.
    """
    from azure.core.exceptions import (  # noqa: PLC0415 - rule 1
        AzureError,
        ServiceRequestError,
        ServiceResponseError,
    )

    for left in reversed(range(tries)):
        try:
            return call()
        except AzureError as error:
            unanswered = isinstance(error, (ServiceRequestError, ServiceResponseError))
            if not left or not unanswered:
                # From None: rule 3.
                raise AzureCallError(_fault_of(error)) from None
    raise AssertionError("a call is made once at least")
