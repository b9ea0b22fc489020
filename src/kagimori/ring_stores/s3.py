"""
A ring in one object of Amazon S3, or of a server that speaks S3.

    s3://BUCKET[/KEY]?region=…&endpoint=…       KEY left out: keys.xml; each key is a ring

Rules of this module:

1. The object is laid out as ASP.NET Core lays out its single documents, under ``<repository>``.
2. A commit writes on the condition that the object is what was read. S3 decides who wins, and
   there is no lock.
3. An ETag of S3 may be the digest of the content, which comes back when the content does. So
   each commit puts a random mark on our state element, which no caller is shown.
4. A write that was repeated after a broken connection may conflict with itself: who finds its
   own mark has won.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Sequence

from kagimori import aws_clients
from kagimori.addresses import Address
from kagimori.errors import (
    ConfigError,
    ConflictError,
    KagimoriError,
    RingReadOnlyError,
    StoreError,
)
from kagimori.keys.findings import Finding
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Element, Snapshot
from kagimori.ring_stores.one_document import OneDocument
from kagimori.ring_stores.s3_object import AbsentError, S3Client, S3Object

DEFAULT_KEY = "keys.xml"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MOST_KEY = 1024
_STATE_TAG = f"{{{xml.KAGIMORI}}}state"
_COMMIT = f"{{{xml.KAGIMORI}}}commit"
_NO_ETAG = '"00000000000000000000000000000000"'


def open_store(address: Address, *, read_only: bool) -> S3Store:
    """
    Return the store of an ``s3:`` address.

    Raises:
        ConfigError: the address is malformed.
    """
    address.allow("region", "endpoint")
    if address.user is not None or address.port is not None:
        raise ConfigError(
            "An s3: address names no user and no port.",
            hint="Credentials are boto3's affair; endpoint=https://host:port names a server.",
        )
    return S3Store(
        address.authority,
        address.path.removeprefix("/") or DEFAULT_KEY,
        region=address.option("region"),
        endpoint=address.option("endpoint"),
        read_only=read_only,
    )


class S3Store:
    """
    A `KeyStore` over one object of S3. Thread-safe, and may be used after a fork.

    Args:
        bucket: its name; made by the first commit where it is missing.
        key: of the object, which is the ring's name in the bucket.
        client: a boto3 client for S3, or a function that makes one (which is better where
            processes fork); left out: one is made, with short timeouts.
        region: of the client that is made; left out: boto3's own.
        endpoint: of the client that is made; left out: AWS's own.
        read_only: refuse commits.

    Raises:
        ConfigError: bucket, key or endpoint cannot be.
    """

    def __init__(
        self,
        bucket: str,
        key: str = DEFAULT_KEY,
        *,
        client: S3Client | Callable[[], S3Client] | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        read_only: bool = False,
    ) -> None:
        if not _BUCKET.fullmatch(bucket):
            raise ConfigError(
                f"No bucket is called {bucket!r}.",
                hint="A ring at S3 is named by s3://BUCKET/KEY.",
            )
        if (
            not key.isprintable()
            or not 0 < len(key.encode()) <= _MOST_KEY
            or key[-1] == "/"
        ):
            raise ConfigError(
                f"No ring can lie at the key {key!r} of the bucket {bucket}.",
                hint="Name an object, such as s3://BUCKET/ring/keys.xml.",
            )
        # Over http nothing secret goes: keys are wrapped, and requests are signed.
        aws_clients.check_endpoint(endpoint, may_be_clear=True)

        def made() -> S3Client:
            own: S3Client = aws_clients.make_client(
                "s3", region=region, endpoint=endpoint
            )
            return own

        clients = aws_clients.per_process(made if client is None else client)
        self._object = S3Object(bucket, key, clients)
        self._read_only = read_only
        self._last: tuple[OneDocument, str | None] | None = None

    @property
    def name(self) -> str:
        """
        Bucket and key.
        """
        return self._object.name

    def probe(self) -> str | None:
        """
        Return the object's ETag.

        Raises:
            StoreError: S3 refuses or does not answer.
        """
        try:
            return self._object.etag()
        except AbsentError:
            return None

    def load(self) -> Snapshot:
        """
        Read the ring; neither object nor bucket need to be there.

        Raises:
            RingUnreadableError: what is there is no ring.
            StoreError: S3 refuses or does not answer.
        """
        document, version = self._read()
        self._last = document, version
        return Snapshot(_unmarked(document), version)

    def commit(
        self, add: Sequence[Element], remove: Sequence[str], expect: str | None
    ) -> Snapshot:
        """
        Add and remove elements if the ring is still at version `expect`.

        Raises:
            ConflictError: the ring changed since; nothing was written.
            RingReadOnlyError: this store was opened read-only.
            StoreError: S3 refuses or does not answer, or the bucket cannot be made.
        """
        if self._read_only:
            raise RingReadOnlyError(f"The ring at {self.name} was opened read-only.")
        mark = secrets.token_hex(16)
        after = _marked(self._at(expect).changed(add, remove), mark)
        try:
            version: str | None = self._write(after.write(), expect)
        except ConflictError:
            found, version = self._read()
            if _mark_of(found) != mark:
                raise
        self._last = after, version
        return Snapshot(_unmarked(after), version)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try to read, to write on a condition, and to read without credentials.

        Nothing is changed: the condition of the write cannot hold, and what it would write is
        what is stored already.
        """
        try:
            stored = self._object.read()[0]
        except AbsentError as absent:
            if absent.is_bucket:
                text = f"The bucket {self._object.bucket} does not exist."
                remedy = f"{self._object.bucket_remedy} Then the first write makes it."
                return (Finding("read", ok=False, text=text, remedy=remedy),)
            stored = None
            text = f"{self.name} may be read, and is not there yet."
        except KagimoriError as error:
            read = Finding("read", ok=False, text=error.text, remedy=error.hint)
            # Writing is not tried: the trial needs what is stored.
            return read, self._try_as_stranger()
        else:
            text = f"{self.name} was read."
        found = [Finding("read", ok=True, text=text)]
        if not self._read_only:
            found.append(self._try_write(stored))
        if stored is not None:
            found.append(self._try_as_stranger())
        return tuple(found)

    def _at(self, expect: str | None) -> OneDocument:
        """
        Return the ring at a version.

        Raises:
            ConflictError: it is at another one by now.
        """
        if expect is None:
            return OneDocument()
        # Mostly it is what was loaded last. If that is stale, the write's condition says so.
        last = self._last
        if last is None or last[1] != expect:
            last = self._read()
        if last[1] != expect:
            raise ConflictError("The ring changed since it was read.")
        return last[0]

    def _read(self) -> tuple[OneDocument, str | None]:
        try:
            data, version = self._object.read()
        except AbsentError:
            return OneDocument(), None
        return OneDocument.read(data, self.name), version

    def _write(self, data: bytes, version: str | None) -> str:
        try:
            return self._object.write(data, version)
        except AbsentError as absent:
            if not absent.is_bucket:
                raise ConflictError("The ring was deleted since it was read.") from None
        self._object.create_bucket()
        try:
            return self._object.write(data, version)
        except AbsentError:
            raise StoreError(
                f"The bucket {self._object.bucket} is being made.",
                hint="Try again.",
                transient=True,
            ) from None

    def _try_write(self, stored: bytes | None) -> Finding:
        right = "write if unchanged"
        try:
            # A server that does not mind conditions writes the same bytes once more.
            self._object.write(stored or b"", _NO_ETAG)
        except (ConflictError, AbsentError):
            text = f"{self.name} may be written, and a stale write is refused."
            return Finding(right, ok=True, text=text)
        except KagimoriError as error:
            return Finding(right, ok=False, text=error.text, remedy=error.hint)
        if stored is None:
            with contextlib.suppress(KagimoriError):
                self._object.delete()
        return Finding(
            right,
            ok=False,
            text="The server writes although the condition of the write does not hold.",
            remedy="Take a server with conditional writes: two writers would lose keys here.",
        )

    def _try_as_stranger(self) -> Finding:
        right = "anonymous read"
        if self._object.status_for_strangers() == 200:
            return Finding(
                right,
                ok=False,
                text=f"{self.name} is read without credentials.",
                remedy="Turn on Block Public Access for the bucket.",
            )
        text = f"{self.name} is closed to those without credentials."
        return Finding(right, ok=True, text=text)


def _marked(document: OneDocument, mark: str) -> OneDocument:
    state = next((e for e in document.elements if e.name == elements.STATE), None)
    others = tuple(e for e in document.elements if e is not state)
    root = xml.element(_STATE_TAG) if state is None else xml.parse(state.xml)
    root.set(_COMMIT, mark)
    return OneDocument((*others, Element(elements.STATE, xml.write(root))))


def _mark_of(document: OneDocument) -> str:
    for element in document.elements:
        if element.name == elements.STATE:
            return xml.parse(element.xml).get(_COMMIT, "")
    return ""


def _unmarked(document: OneDocument) -> tuple[Element, ...]:
    shown = []
    for element in document.elements:
        if element.name != elements.STATE:
            shown.append(element)
            continue
        root = xml.parse(element.xml)
        root.attrib.pop(_COMMIT, None)
        # Without a generation it is there for the mark alone.
        if root.get("generation"):
            shown.append(Element(elements.STATE, xml.write(root)))
    return tuple(shown)
