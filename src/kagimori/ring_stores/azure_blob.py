"""
A ring in one blob of Azure Storage, laid out exactly as ASP.NET Core's Blob store has it.

    azblob://ACCOUNT/CONTAINER[/BLOB]                         the blob is keys.xml if left out
    https://ACCOUNT.blob.core.windows.net/CONTAINER[/BLOB]    with ?SAS too
        endpoint=https://…    instead of https://ACCOUNT.blob.core.windows.net (azblob: only)
        identity=CLIENT_ID    of a user-assigned managed identity
        sas-env=NAME  sas-file=/path     a shared access signature, instead of signing in
        account-key-env=NAME  account-key-file=/path    the account's key, likewise

Rules of this module (`aspnet-data-protection.md` 2.6):

1. The version of the ring is the blob's ETag, and a commit is one conditional write: whoever
   wrote since, .NET too, makes it a conflict, and nothing of theirs is lost.
2. A write that was not answered is looked up before anything is said of it.
3. Absent is what the service says is absent by its own code. Any other 404 may come from
   whatever else answers at an address, and is no empty ring.
4. A container is made only to write into it, and never open to anonymous readers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kagimori import azure_sign_in
from kagimori.addresses import Address
from kagimori.azure_sign_in import AzureCallError, Fault, ask
from kagimori.errors import ConflictError, RingReadOnlyError, StoreError
from kagimori.keys.findings import Finding
from kagimori.keys.store import Element, Snapshot
from kagimori.per_process import PerProcess
from kagimori.ring_stores import azure_blob_faults as faults
from kagimori.ring_stores.azure_blob_place import BlobPlace, Clients
from kagimori.ring_stores.one_document import (
    CONTENT_TYPE,
    MOST_BYTES,
    OneDocument,
    too_large,
)

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import BlobClient

_TRIES = 2
# Given clients may have retries of their own, which sleep for minutes.
_ONCE: Mapping[str, Any] = {"retry_total": 0}
_NO_SUCH_VERSION = '"0x0"'


def open_store(address: Address, *, read_only: bool) -> AzureBlobStore:
    """
    Return the store of an address; nothing is asked of Azure yet.

    Raises:
        ConfigError: the address is malformed, or the package is not installed.
        InsecureConfigError: the address would send secrets over a network in the clear.
    """
    return AzureBlobStore(BlobPlace.of(address), read_only=read_only)


def store_of(
    address: Address, credential: TokenCredential, *, read_only: bool
) -> AzureBlobStore:
    """
    Return the store of an address; a key or signature in it goes before the credential.

    Raises:
        ConfigError, InsecureConfigError: as `open_store`.
    """
    place = BlobPlace.of(address)
    if place.sas is None and place.key is None:
        place = place.signed_in_by(credential)
    return AzureBlobStore(place, read_only=read_only)


class AzureBlobStore:
    """
    A `KeyStore` over one blob. Thread-safe, and each forked process has connections of its own.

    Args:
        place: where the blob lies and who reads it; see `BlobPlace`.
        read_only: refuse commits; the role Storage Blob Data Reader suffices.
        read_seconds: how long to wait for an answer.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(
        self,
        place: BlobPlace,
        *,
        read_only: bool = False,
        read_seconds: float = azure_sign_in.READ_SECONDS,
    ) -> None:
        try:
            import azure.storage.blob  # noqa: F401 - an optional package
        except ImportError:
            raise azure_sign_in.missing_package() from None
        self._place = place
        self._read_only = read_only
        self._clients = PerProcess(lambda: place.clients(read_seconds))
        self._kept: tuple[str, OneDocument] | None = None

    @classmethod
    def from_blob_client(
        cls, client: BlobClient, *, read_only: bool = False
    ) -> AzureBlobStore:
        """
        Return the store of a blob for which there is a client.

        It keeps its own time limits, and makes no retries. A forked process makes one like it for
        itself, with the limits of all others.
        """
        place = BlobPlace.of_client(client)
        store = cls(place, read_only=read_only)
        owner = os.getpid()

        def clients() -> Clients:
            made = place.clients(azure_sign_in.READ_SECONDS)
            return Clients(client, made.container) if os.getpid() == owner else made

        store._clients = PerProcess(clients)
        return store

    @classmethod
    def from_credential(
        cls, url: str, credential: TokenCredential, *, read_only: bool = False
    ) -> AzureBlobStore:
        """
        Return the store of a blob's or a container's https address, read by a given credential.

        Raises:
            ConfigError: the address is malformed, or the package is not installed.
        """
        place = BlobPlace.of(Address.parse(url)).signed_in_by(credential)
        return cls(place, read_only=read_only)

    @property
    def name(self) -> str:
        """
        The blob's address, without any signature.
        """
        return self._place.url

    def load(self) -> Snapshot:
        """
        Read the ring; while it is unchanged, only that is asked (304).
        """
        found = self._read()
        return Snapshot((), None) if found is None else _snapshot(*found)

    def probe(self) -> str | None:
        """
        Return the blob's ETag.
        """
        client = self._clients.get().blob
        try:
            return str(ask(lambda: client.get_blob_properties(**_ONCE), tries=2).etag)
        except AzureCallError as error:
            if faults.is_absent(error.fault):
                return None
            raise self._error(error.fault, "reading") from None

    def commit(
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        """
        Add and remove elements if the ring is still at version `expect`.

        Raises:
            ConflictError: the ring changed since; nothing was written.
            RingReadOnlyError: this store was opened read-only.
            StoreError: Azure refuses or does not answer.
        """
        if self._read_only:
            raise RingReadOnlyError(f"The ring at {self.name} was opened read-only.")
        new = self._at(expect).changed(add, remove)
        data = new.write()
        lost, made = 0, False
        while True:
            try:
                version = self._write(data, expect)
            except AzureCallError as error:
                fault = error.fault
            else:
                self._kept = version, new
                return _snapshot(version, new)
            if faults.is_no_container(fault) and not made:
                self._make_container()
                made = True
                continue
            if faults.is_conflict(fault) and not lost:
                raise _changed()
            if not (faults.is_conflict(fault) or faults.is_unanswered(fault)):
                raise self._error(fault, "writing")
            # Rule 2. After a lost answer a conflict may be one with ourselves.
            lost += 1
            found = self._read()
            if found is not None and found[1].holds(add, remove):
                return _snapshot(*found)
            if (found and found[0]) != expect:
                raise _changed()
            if lost == _TRIES:
                raise self._error(fault, "writing")

    def examine(self) -> tuple[Finding, ...]:
        """
        Try each right by itself, writing only where this store writes; nothing is left behind.
        """
        read, anonymous = self._examine_read(), self._examine_anonymous()
        if self._read_only:
            return read, anonymous
        return read, self._examine_write(), anonymous

    # --- calls -----------------------------------------------------------------------------

    def _at(self, expect: str | None) -> OneDocument:
        """
        Return the document of a version.

        Raises:
            ConflictError: the blob is at another one.
        """
        if expect is None:
            # That there is nothing yet is for the write itself to find out.
            return OneDocument()
        kept = self._kept
        if kept is None or kept[0] != expect:
            kept = self._read()
        if kept is None or kept[0] != expect:
            raise _changed()
        return kept[1]

    def _read(self) -> tuple[str, OneDocument] | None:
        """
        Return the blob's version and content, ``None`` if there is no blob.
        """
        kept = self._kept
        try:
            version, data = ask(lambda: self._download(kept and kept[0]), tries=2)
        except AzureCallError as error:
            if kept is not None and faults.is_not_modified(error.fault):
                return kept
            if faults.is_absent(error.fault):
                self._kept = None
                return None
            raise self._error(error.fault, "reading") from None
        found = version, OneDocument.read(data, self.name)
        self._kept = found
        return found

    def _download(self, known: str | None) -> tuple[str, bytes]:
        from azure.core import MatchConditions

        client = self._clients.get().blob
        if known is None:
            stream = client.download_blob(**_ONCE)
        else:
            stream = client.download_blob(
                etag=known, match_condition=MatchConditions.IfModified, **_ONCE
            )
        if stream.size > MOST_BYTES:
            raise too_large(self.name)
        return str(stream.properties.etag), stream.readall()

    def _write(self, data: bytes, expect: str | None) -> str:
        from azure.core import MatchConditions
        from azure.storage.blob import ContentSettings

        client = self._clients.get().blob
        settings = ContentSettings(content_type=CONTENT_TYPE)

        def write() -> dict[str, Any]:
            if expect is None:
                return client.upload_blob(
                    data, overwrite=False, content_settings=settings, **_ONCE
                )
            return client.upload_blob(
                data,
                overwrite=True,
                content_settings=settings,
                etag=expect,
                match_condition=MatchConditions.IfNotModified,
                **_ONCE,
            )

        return str(ask(write)["etag"])

    def _make_container(self) -> None:
        try:
            # Private: without a level of public access, nobody reads it anonymously.
            ask(self._clients.get().container.create_container)
        except AzureCallError as error:
            if not faults.is_already_there(error.fault):
                raise faults.no_container(self._place, error.fault) from None

    def _error(self, fault: Fault, doing: str) -> StoreError:
        needs_write = not self._read_only
        return faults.store_error(self._place, fault, doing, needs_write=needs_write)

    # --- the doctor's questions ------------------------------------------------------------

    def _examine_read(self) -> Finding:
        try:
            found = self._read()
        except StoreError as error:
            return Finding("read", ok=False, text=error.text, remedy=error.hint)
        text = "The blob is there and was read." if found else "There is no blob yet."
        return Finding("read", ok=True, text=text)

    def _examine_write(self) -> Finding:
        right = "write if unchanged"
        try:
            # No blob is ever at this version: with the right the condition fails, and without
            # it the service refuses before it looks at conditions.
            self._write(b"", _NO_SUCH_VERSION)
        except AzureCallError as error:
            if faults.is_conflict(error.fault):
                text = "A conditional write was let through to its condition."
                return Finding(right, ok=True, text=text)
            if faults.is_no_container(error.fault):
                text = f"There is no container {self._place.container} yet."
                remedy = faults.container_hint(self._place)
                return Finding(right, ok=False, text=text, remedy=remedy)
            refused = faults.store_error(self._place, error.fault, "writing")
            return Finding(right, ok=False, text=refused.text, remedy=refused.hint)
        return Finding(
            right,
            ok=False,
            text="The service wrote although the condition did not hold.",
            remedy="This is no Azure Storage that a ring may lie in.",
        )

    def _examine_anonymous(self) -> Finding:
        right = "anonymous read"
        try:
            level = self._public_level()
        except AzureCallError as error:
            refused = self._error(error.fault, "reading")
            return Finding(right, ok=False, text=refused.text, remedy=refused.hint)
        if level is None:
            return Finding(right, ok=True, text="Nobody reads it without signing in.")
        return Finding(
            right,
            ok=False,
            text=f"Anybody can read the {level} {self._place.container} without signing in.",
            remedy="Set the container's anonymous access level to Private, and the storage "
            "account's 'Allow Blob anonymous access' to Disabled; then rotate if keys lay there "
            "unwrapped.",
        )

    def _public_level(self) -> str | None:
        anonymous = self._place.anonymous()
        for level, call in (
            ("container", anonymous.container.get_container_properties),
            ("blobs of the container", anonymous.blob.get_blob_properties),
        ):
            try:
                ask(call)
            except AzureCallError as error:
                if faults.is_unanswered(error.fault):
                    raise
                continue
            return level
        try:
            properties = ask(self._clients.get().container.get_container_properties)
        except AzureCallError:
            # The right to see the container's settings is not needed for anything else.
            return None
        return "blobs of the container" if properties.public_access else None

    def __repr__(self) -> str:
        return f"<AzureBlobStore {self.name}>"

    def __reduce__(self) -> str:
        raise TypeError("a store with its sign-in is not pickled")


def _snapshot(version: str, document: OneDocument) -> Snapshot:
    return Snapshot(document.elements, version)


def _changed() -> ConflictError:
    return ConflictError("The ring changed since it was read.")
