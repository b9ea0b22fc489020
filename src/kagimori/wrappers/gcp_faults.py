"""
What the errors of Google Cloud KMS mean, in its own words: which permission, state or quota.

Rule of this module: a foreign error is never chained or quoted, since it may hold what was sent.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable

from kagimori.errors import KeyWrapError
from kagimori.wrappers.gcp_client import without_credentials
from kagimori.wrappers.sealing import UnopenableError

_STATE = re.compile(r"state is: ([A-Z_]+)")
_ROLE = "Cloud KMS CryptoKey Encrypter/Decrypter (roles/cloudkms.cryptoKeyEncrypterDecrypter)"
_PERMISSIONS = {
    "encrypt": "cloudkms.cryptoKeyVersions.useToEncrypt",
    "decrypt": "cloudkms.cryptoKeyVersions.useToDecrypt",
}
_PASSING = {
    "CANCELLED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "ABORTED",
    "UNKNOWN",
}
_AGAIN = {"UNAVAILABLE", "INTERNAL", "UNKNOWN"}


class DamagedError(Exception):
    """
    A checksum did not hold.
    """


def fault(name: str, verb: str, error: Exception, timeout: float) -> KeyWrapError:
    """
    Return what an error of the client means.

    Args:
        verb: ``encrypt`` or ``decrypt``.
        timeout: the seconds that the call was given.
    """
    status = _status(error)
    message = str(getattr(error, "message", ""))
    detail = f"{type(error).__name__} {status}".strip()
    if _is_damaged(error):
        return KeyWrapError(
            f"What {name} was sent or answered was damaged on the way (CRC32C).",
            hint="Check what stands between this machine and cloudkms.googleapis.com.",
            transient=True,
        )
    if status == "PERMISSION_DENIED" and "SERVICE_DISABLED" in _reasons(error):
        return KeyWrapError(
            f"The Cloud KMS API is not enabled for the project that asks {name}.",
            hint="Enable it: gcloud services enable cloudkms.googleapis.com.",
            detail=detail,
        )
    if status == "PERMISSION_DENIED":
        return KeyWrapError(
            f"{name} does not let this identity {verb}: the permission "
            f"{_PERMISSIONS[verb]} is missing, or there is no such key.",
            hint=f"Grant the role {_ROLE} on the key.",
            detail=detail,
        )
    if status == "UNAUTHENTICATED":
        return without_credentials(name, detail)
    if status == "NOT_FOUND":
        return KeyWrapError(
            f"There is no {name}.",
            hint="Check project, location, key ring and key in the address.",
            detail=detail,
        )
    if status == "FAILED_PRECONDITION":
        return _unusable(name, verb, message, detail)
    if status == "INVALID_ARGUMENT" and verb == "decrypt":
        return UnopenableError(
            f"{name} does not open what the ring holds: it was wrapped by another key, or "
            "altered.",
            hint="Name the key that the ring was made with. If it is that one, restore the "
            "ring from a backup.",
            detail=detail,
        )
    if status == "INVALID_ARGUMENT":
        return _unusable(name, verb, message, detail)
    if status == "RESOURCE_EXHAUSTED":
        return KeyWrapError(
            f"{name} is throttled: the project's quota of cryptographic operations is "
            "used up.",
            hint="Raise the quota, or open fewer rings at once.",
            detail=detail,
            transient=True,
            retry_after=_retry_delay(error),
        )
    return KeyWrapError(
        f"{name} did not answer within {timeout:g} s."
        if status == "DEADLINE_EXCEEDED"
        else f"{name} cannot be reached or failed.",
        hint="Check the network, the endpoint and Google's status page.",
        detail=detail,
        transient=status in _PASSING or not status,
    )


def _unusable(name: str, verb: str, message: str, detail: str) -> KeyWrapError:
    found = _STATE.search(message)
    state = found[1] if found else ""
    remedies = {
        "DISABLED": "Enable it again: gcloud kms keys versions enable.",
        "DESTROY_SCHEDULED": "Restore it before its day comes: gcloud kms keys versions "
        "restore; then enable it.",
        "DESTROYED": "It is gone. Restore the ring from a backup that another wrapper "
        "opens.",
    }
    if not state:
        return KeyWrapError(
            f"{name} cannot {verb}.",
            hint="It needs the purpose ENCRYPT_DECRYPT and an enabled primary version.",
            detail=detail,
        )
    return KeyWrapError(
        f"The version of {name} that has to {verb} is not enabled but {state}.",
        hint=remedies.get(state, "Enable it."),
        detail=detail,
    )


def may_try_again(error: Exception) -> bool:
    """
    Whether the same call may well succeed at once.
    """
    return _is_damaged(error) or _status(error) in _AGAIN


def _is_damaged(error: Exception) -> bool:
    # The service says of a checksum that did not hold that the argument is invalid.
    return isinstance(error, DamagedError) or (
        _status(error) == "INVALID_ARGUMENT"
        and "checksum" in str(getattr(error, "message", ""))
    )


def _status(error: Exception) -> str:
    """
    Return the name of the gRPC status in an error of the client, empty without one.
    """
    code = getattr(error, "grpc_status_code", None)
    return str(getattr(code, "name", ""))


def _details(error: Exception) -> Iterable[object]:
    details = getattr(error, "details", ())
    return details if isinstance(details, (list, tuple)) else ()


def _reasons(error: Exception) -> set[str]:
    return {str(getattr(detail, "reason", "")) for detail in _details(error)}


def _retry_delay(error: Exception) -> float | None:
    """
    Return the seconds of ``google.rpc.RetryInfo``, if the service sent one.
    """
    for detail in _details(error):
        delay = getattr(detail, "retry_delay", None)
        if delay is not None:
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                return max(0.0, float(delay.seconds) + float(delay.nanos) / 1e9)
    return None
