"""
Clients of AWS: how they are made, called, and what their errors mean.

Rules of this module:

1. boto3 is imported when the first client is made: it costs a third of a second.
2. Each process makes its own client. boto3's clients may be shared by threads, and connections
   that a fork copied may not.
3. A call is bounded: 2 s to connect, 5 s for an answer, and one more try where the connection
   broke or the service failed. Who asks for fewer calls is not called again: the error says
   after how long it may be.
4. Credentials are boto3's own affair (environment, profile, role, container, instance). None
   stands in an address, an error or a repr.
5. An endpoint over http is asked directly. A proxy of the environment would be sent keys in the
   clear, for an emulator on this machine too.
"""

from __future__ import annotations

import email.utils
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kagimori.errors import ConfigError, InsecureConfigError, KagimoriError
from kagimori.per_process import PerProcess

CONNECT_SECONDS = 2
READ_SECONDS = 5
TRIES = 2

_MOST_RETRY_AFTER = 3600.0
_MOST_DETAIL = 300
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "403", "Forbidden"}
)
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    What went wrong with a call, in the words of its caller's error.

    Attributes:
        code: AWS's own code, empty where there was no answer.
        says: the end of a sentence that the service begins, such as ``does not answer``.
        retry_after: seconds, where the service named them.
        is_denied: whether a right is missing.
        action: the right, such as ``kms:Decrypt``, where the service named it.
    """

    code: str
    status: int
    says: str
    hint: str
    detail: str
    transient: bool = False
    retry_after: float | None = None
    is_denied: bool = False
    action: str = ""


def per_process(given: _T | Callable[[], _T]) -> PerProcess[_T]:
    """
    Return each process's own client, from a client or from what makes one.

    A client that was given lets go of its connections in a forked process; what makes one is
    the better thing to give.
    """
    if callable(given):
        return PerProcess(given)
    owner = os.getpid()
    client: _T = given

    def of_this_process() -> _T:
        if os.getpid() != owner:
            close: Callable[[], None] | None = getattr(client, "close", None)
            if close is not None:
                close()
        return client

    return PerProcess(of_this_process)


def make_client(
    service: str,
    *,
    region: str | None = None,
    endpoint: str | None = None,
    is_signed: bool = True,
) -> Any:
    """
    Make a client for a service, with boto3's own credentials.

    Args:
        service: such as ``kms``.
        region: left out: boto3's own, then ``AWS_REGION``.
        endpoint: an address instead of AWS's own.
        is_signed: false asks as somebody without credentials.

    Raises:
        ConfigError: boto3 is missing, or region, endpoint or profile cannot be.
    """
    try:
        import boto3.session  # noqa: PLC0415 - rule 1
        from botocore import UNSIGNED  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "Rings at AWS need the package boto3.", hint="pip install 'kagimori[aws]'"
        ) from None
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }
    if not is_signed:
        options["signature_version"] = UNSIGNED
    if service == "s3" and endpoint is not None:
        # Servers that speak S3 and are not AWS know neither its host names nor its checksums.
        options["s3"] = {"addressing_style": "path"}
        options["request_checksum_calculation"] = "when_required"
        options["response_checksum_validation"] = "when_required"
    try:
        # A session of its own: boto3's default one must not be used by several threads.
        session = boto3.session.Session()
        named: dict[str, Any] = {
            "region_name": region
            or session.region_name
            or os.environ.get("AWS_REGION"),
            "endpoint_url": endpoint,
        }
        client = session.client(service, config=Config(**options), **named)
        # boto3 takes an endpoint from its own variables and files too.
        if urlsplit(client.meta.endpoint_url).scheme == "http":
            options["proxies"] = {}  # rule 5
            client.close()
            client = session.client(service, config=Config(**options), **named)
    except (BotoCoreError, ValueError) as error:
        kind = type(error).__name__
        hints = {
            "NoRegionError": "Give region=…, or set AWS_REGION.",
            "ProfileNotFound": "AWS_PROFILE names a profile that is not there.",
        }
        raise ConfigError(
            f"No client for AWS {service} can be made.",
            hint=hints.get(kind, "Check region and endpoint."),
            detail=kind,
        ) from None
    check_endpoint(client.meta.endpoint_url, may_be_clear=service != "kms")
    return client


def check_endpoint(endpoint: str | None, *, may_be_clear: bool = False) -> None:
    """
    Refuse an endpoint that is no address, or that would carry secrets in the clear.

    Raises:
        ConfigError: it is no http or https address of a host.
        InsecureConfigError: it is http, and not on this machine.
    """
    if endpoint is None:
        return
    try:
        parts = urlsplit(endpoint)
        scheme, host, user = parts.scheme, parts.hostname, parts.username
    except ValueError:
        scheme, host, user = "", None, None
    if not host or scheme not in {"http", "https"} or user is not None:
        raise ConfigError("An endpoint is an address such as https://host:port.")
    if scheme == "http" and not may_be_clear and host not in _LOOPBACK:
        raise InsecureConfigError(
            "An endpoint over http would carry keys in the clear.",
            hint="Name it by https://.",
        )


def attempted(call: Callable[[], _T]) -> _T:
    """
    Call a service, and once more where the connection broke or the service failed.

    Whoever timed out is not asked again: a caller waits for one answer, not for two.
    """
    for _ in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            if not _may_repeat(error):
                raise
    return call()


def trouble_of(error: Exception) -> Trouble | None:
    """
    Return what an error of boto3 means, ``None`` where it is none of its own.
    """
    from botocore.exceptions import (  # noqa: PLC0415 - rule 1
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        FlexibleChecksumError,
        HTTPClientError,
        IncompleteReadError,
        NoCredentialsError,
        PartialCredentialsError,
    )
    from botocore.exceptions import (  # noqa: PLC0415
        ConnectionError as ConnectionFailure,
    )
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    kind = type(error).__name__
    if isinstance(error, KagimoriError):
        return None
    if isinstance(error, ClientError):
        return _answered(error.response)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return Trouble(
            "",
            0,
            "cannot be asked: there are no credentials",
            "Give the machine, container or function a role, or set AWS_PROFILE.",
            kind,
        )
    if isinstance(error, CredentialRetrievalError):
        says = "cannot be asked: the credentials cannot be had at the moment"
        hint = "Check the role and the service that hands out its credentials."
        return Trouble("", 0, says, hint, kind, transient=True)
    if isinstance(error, ResponseParserError):
        says, hint = "gives no answer of AWS", "Check the endpoint and proxies."
        return Trouble("", 0, says, hint, kind, transient=True)
    if "CERTIFICATE_VERIFY_FAILED" in str(error) and isinstance(error, BotoCoreError):
        says = "shows a certificate that is not trusted here"
        hint = "Check the endpoint; AWS_CA_BUNDLE names further authorities."
        return Trouble("", 0, says, hint, kind)
    if isinstance(error, (IncompleteReadError, FlexibleChecksumError)):
        hint = "Check the endpoint and the network, then try again."
        return Trouble("", 0, "sends broken answers", hint, kind, transient=True)
    if isinstance(error, (HTTPClientError, ConnectionFailure, OSError)):
        hint = "Check the endpoint and the network, then try again."
        return Trouble("", 0, "does not answer", hint, kind, transient=True)
    if isinstance(error, BotoCoreError):
        return Trouble("", 0, "cannot be asked", "Check the address.", kind)
    return None


def _may_repeat(error: Exception) -> bool:
    trouble = trouble_of(error)
    if trouble is None or "Timeout" in type(error).__name__:
        return False
    broke = not trouble.status and not trouble.code and trouble.transient
    return broke or trouble.status in {500, 502, 504}


def _answered(response: Mapping[str, Any]) -> Trouble:
    said = response.get("Error", {})
    met = response.get("ResponseMetadata", {})
    code, status = str(said.get("Code", "")), int(met.get("HTTPStatusCode", 0) or 0)
    message = " ".join(str(said.get("Message", "")).split())[:_MOST_DETAIL]
    detail = f"{code}: {message}"
    wait = _retry_after(met.get("HTTPHeaders", {}))
    if code in _THROTTLED or status in {429, 503}:
        hint = "Wait, then try again; if it stays so, have its quota raised."
        return Trouble(
            code,
            status,
            "asks for fewer calls",
            hint,
            detail,
            transient=True,
            retry_after=wait,
        )
    if code in _CREDENTIALS:
        hint = "Check the credentials, the role and this machine's clock."
        # Without the message: it may quote the signed request, session token included.
        return Trouble(code, status, f"refuses the credentials ({code})", hint, code)
    if code in _DENIED:
        named = re.search(r"perform: ([a-z0-9-]+:[A-Za-z0-9]+)", message)
        return Trouble(
            code,
            status,
            "denies",
            "",
            detail,
            is_denied=True,
            action=named[1] if named else "",
        )
    if status >= 500:
        hint = "Try again; if it stays so, look at AWS's health dashboard."
        return Trouble(
            code, status, "failed", hint, detail, transient=True, retry_after=wait
        )
    return Trouble(code, status, f"refuses ({code})", "", detail)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds of ``Retry-After`` (RFC 9110 section 10.2.3), in either form.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _MOST_RETRY_AFTER)
    try:
        until = email.utils.parsedate_to_datetime(text)
        # Against the answer's own date: our clock may be another one.
        sent = email.utils.parsedate_to_datetime(headers.get("date", ""))
        seconds = (until - sent).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), _MOST_RETRY_AFTER)
