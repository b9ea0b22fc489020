"""
What Azure Storage's refusals mean for a ring, and what to do about each, in the portal's words.

The codes are those of "Blob service error codes" and "Common REST API error codes".
"""

from __future__ import annotations

from kagimori.azure_sign_in import SIGN_IN_HINT, Fault
from kagimori.errors import StoreError
from kagimori.ring_stores.azure_blob_place import BlobPlace

_ABSENT = frozenset({"BlobNotFound", "ContainerNotFound"})
_CONFLICT = frozenset({"ConditionNotMet", "BlobAlreadyExists", "TargetConditionNotMet"})
_OTHER_KINDS = frozenset(
    {"InvalidBlobType", "BlobArchived", "BlobImmutableDueToPolicy"}
)
_BEING_DELETED = frozenset({"ContainerBeingDeleted", "ContainerNotFound"})
_LEASED = frozenset({"LeaseIdMissing", "LeaseLost", "LeaseAlreadyPresent"})
_BAD_SIGNATURES = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo"})
WRITER = "Storage Blob Data Contributor"
READER = "Storage Blob Data Reader"


def is_absent(fault: Fault) -> bool:
    """
    Whether the service says that there is no blob.
    """
    return fault.status == 404 and fault.code in _ABSENT


def is_no_container(fault: Fault) -> bool:
    """
    Whether the service says that there is no container.
    """
    return fault.status == 404 and fault.code == "ContainerNotFound"


def is_already_there(fault: Fault) -> bool:
    """
    Whether the container that was to be made is there, or just being deleted.
    """
    codes = {"ContainerAlreadyExists", "ContainerBeingDeleted", "ResourceAlreadyExists"}
    return fault.code in codes


def is_not_modified(fault: Fault) -> bool:
    """
    Whether the blob is still at the version that was asked about.
    """
    return fault.status == 304


def is_conflict(fault: Fault) -> bool:
    """
    Whether a write was refused because the blob is at another version.
    """
    return fault.status in {409, 412} and fault.code in _CONFLICT


def is_unanswered(fault: Fault) -> bool:
    """
    Whether nobody can tell yet what became of a write.
    """
    return fault.status is None and not fault.is_sign_in


def container_hint(place: BlobPlace) -> str:
    """
    Say how a container comes about.
    """
    return f"Make the container {place.container}, private. {place.allowing(WRITER)}"


def no_container(place: BlobPlace, fault: Fault) -> StoreError:
    """
    Return the error of a container that is not there and could not be made.
    """
    return StoreError(
        f"There is no container {place.container} at {place.account_url}, and making it was "
        f"not possible ({_named(fault)}).",
        hint=container_hint(place),
        transient=fault.is_transient,
        retry_after=fault.retry_after,
    )


def store_error(
    place: BlobPlace, fault: Fault, doing: str, *, needs_write: bool = True
) -> StoreError:
    """
    Return what a refusal, or no answer, is to whoever uses the store.

    Args:
        doing: ``reading`` or ``writing``.
        needs_write: whether this store is one that writes.
    """
    text, hint = _explained(place, fault, doing, needs_write=needs_write)
    return StoreError(
        text,
        hint=hint,
        detail=_named(fault),
        transient=fault.is_transient or fault.code in _BEING_DELETED,
        retry_after=fault.retry_after,
    )


def _explained(
    place: BlobPlace, fault: Fault, doing: str, *, needs_write: bool
) -> tuple[str, str]:
    where = f"The ring at {place.url}"
    role = (
        "Storage Blob Data Contributor" if needs_write else "Storage Blob Data Reader"
    )
    if fault.is_sign_in:
        return f"Signing in to Azure for the ring at {place.url} failed.", SIGN_IN_HINT
    if fault.status is None:
        return (
            f"{where} does not answer.",
            f"Check that {place.account_url} is right and can be reached from here.",
        )
    if fault.status in {429, 503}:
        return f"{where} is asked too often at the moment.", ""
    if fault.status >= 500:
        return f"{where} fails at the moment ({_named(fault)}).", ""
    if fault.code in _BAD_SIGNATURES or fault.status == 401:
        return f"{where} does not take our credentials.", place.credentials_hint
    if fault.status == 403:
        hint = (
            f"{place.allowing(role)} If that is so already, let this network through the "
            "storage account's firewall (Networking)."
        )
        return f"{where}: {doing} is not allowed ({_named(fault)}).", hint
    if fault.code in _BEING_DELETED:
        return (
            f"{where}: its container is just being deleted, or made.",
            "A container that was deleted takes a while to be gone; choose another name, or wait.",
        )
    if fault.code in _LEASED:
        return f"{where} is locked by a lease.", "Break the lease on the blob."
    if fault.code in _OTHER_KINDS:
        return (
            f"{where} cannot be written ({_named(fault)}).",
            "A ring is a block blob without an immutability policy, not archived.",
        )
    if fault.status == 404:
        return (
            f"{where}: what answers is no container of Azure Storage ({_named(fault)}).",
            f"Check that {place.account_url} is the storage account's blob endpoint.",
        )
    return f"{where}: {doing} failed ({_named(fault)}).", ""


def _named(fault: Fault) -> str:
    return fault.code if fault.status is None else f"{fault.status} {fault.code}"
