"""
The official client of Google Cloud KMS, as far as it is needed here, and how to make one.

Rules of this module:

1. The package is imported when a client is made, not before.
2. A clear connection is made to the loopback interface only, and without credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from kagimori.errors import ConfigError, InsecureConfigError, KeyWrapError

_CONNECTION = [
    # Otherwise a channel waits up to two minutes before it tries an endpoint again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
]


class EncryptAnswer(Protocol):
    """
    What is read of ``google.cloud.kms_v1.EncryptResponse``.
    """

    name: str
    ciphertext: bytes
    ciphertext_crc32c: int | None
    verified_plaintext_crc32c: bool
    verified_additional_authenticated_data_crc32c: bool


class DecryptAnswer(Protocol):
    """
    What is read of ``google.cloud.kms_v1.DecryptResponse``.
    """

    plaintext: bytes
    plaintext_crc32c: int | None


class KmsClient(Protocol):
    """
    What is called of ``google.cloud.kms_v1.KeyManagementServiceClient``.
    """

    def encrypt(
        self, request: dict[str, object], *, retry: None, timeout: float
    ) -> EncryptAnswer:
        """
        Call Encrypt.
        """
        ...

    def decrypt(
        self, request: dict[str, object], *, retry: None, timeout: float
    ) -> DecryptAnswer:
        """
        Call Decrypt.
        """
        ...


def maker(endpoint: str | None) -> Callable[[], KmsClient]:
    """
    Return what makes clients of an endpoint, by the application's default credentials.

    Raises:
        ConfigError: the endpoint is malformed.
        InsecureConfigError: it is in the clear and not on this machine.
    """
    if endpoint is None:
        return lambda: _new_client(None, is_clear=False)
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        is_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_host = urlsplit(""), False
    if (
        not is_host
        or parts.scheme not in {"http", "https"}
        or parts.path.strip("/")
        or "@" in parts.netloc
    ):
        raise ConfigError(
            "The endpoint of a gcpkms: address is a host, with a port where need be.",
            hint="Such as https://cloudkms-name.p.googleapis.com.",
        )
    is_clear = parts.scheme == "http"
    if is_clear and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        raise InsecureConfigError(
            "Cloud KMS is asked over TLS; http:// is for this machine's own tests.",
            hint="Write https://.",
        )
    return lambda: _new_client(parts.netloc, is_clear=is_clear)


def _new_client(endpoint: str | None, *, is_clear: bool) -> KmsClient:
    try:
        import grpc
        from google.auth import exceptions
        from google.cloud import kms_v1
        from google.cloud.kms_v1.services.key_management_service import transports
    except ImportError:
        raise ConfigError(
            "Google Cloud KMS needs a package that is not installed.",
            hint="pip install 'kagimori[gcp]'",
        ) from None
    transport = transports.KeyManagementServiceGrpcTransport
    if is_clear and endpoint is not None:
        options = [*_CONNECTION, ("grpc.enable_http_proxy", 0)]
        channel = grpc.insecure_channel(endpoint, options=options)
        made = kms_v1.KeyManagementServiceClient(transport=transport(channel=channel))
        return cast("KmsClient", made)

    def connect(host: str, **given: Any) -> object:
        given["options"] = [*(given.get("options") or ()), *_CONNECTION]
        return transport.create_channel(host, **given)

    try:
        made = kms_v1.KeyManagementServiceClient(
            transport=lambda **given: transport(channel=connect, **given),
            client_options={"api_endpoint": endpoint} if endpoint else {},
        )
    except exceptions.GoogleAuthError as error:
        raise without_credentials("Google Cloud KMS", type(error).__name__) from None
    return cast("KmsClient", made)


def without_credentials(name: str, detail: str) -> KeyWrapError:
    """
    Return the error of an identity that Google does not know.
    """
    return KeyWrapError(
        f"{name} was asked without valid Google credentials.",
        hint="Attach a service account, set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth "
        "application-default login.",
        detail=detail,
    )
