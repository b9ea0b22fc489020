"""
One object of Amazon S3, or of a server that speaks S3: reading, and writing on a condition.

Rules of this module:

1. Every write is conditional: ``If-None-Match: *`` where nothing may be, else ``If-Match``.
2. A bucket's versions, encryption and retention are its owner's and left alone. One that is
   made here has public access blocked before anything is put into it.
3. What boto3 raises leaves here as a declared error, which names bucket and IAM action.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from kagimori import aws_clients
from kagimori.errors import ConflictError, KagimoriError, StoreError
from kagimori.per_process import PerProcess
from kagimori.ring_stores.one_document import CONTENT_TYPE, MOST_BYTES, too_large

_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "404"})
_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_BLOCKED = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}

_T = TypeVar("_T")


class _Body(Protocol):
    def read(self, amount: int) -> bytes: ...

    def close(self) -> None: ...


class _Meta(Protocol):
    @property
    def region_name(self) -> str | None: ...

    @property
    def endpoint_url(self) -> str: ...


class S3Client(Protocol):
    """
    What is called of a boto3 client for S3.
    """

    @property
    def meta(self) -> _Meta: ...  # noqa: D102 - boto3's own

    def get_object(self, **arguments: object) -> Mapping[str, object]: ...  # noqa: D102

    def head_object(self, **arguments: object) -> Mapping[str, object]: ...  # noqa: D102

    def put_object(self, **arguments: object) -> Mapping[str, object]: ...  # noqa: D102

    def delete_object(self, **arguments: object) -> object: ...  # noqa: D102

    def create_bucket(self, **arguments: object) -> object: ...  # noqa: D102

    def put_public_access_block(self, **arguments: object) -> object: ...  # noqa: D102


class AbsentError(StoreError):
    """
    The object is not there, or not even its bucket.
    """

    def __init__(self, *, is_bucket: bool) -> None:
        super().__init__("There is no such object.")
        self.is_bucket = is_bucket


class S3Object:
    """
    The calls on one object. Thread-safe.
    """

    def __init__(self, bucket: str, key: str, client: PerProcess[S3Client]) -> None:
        self.bucket = bucket
        self.key = key
        self._client = client

    @property
    def name(self) -> str:
        """
        Bucket and key.
        """
        return f"s3://{self.bucket}/{self.key}"

    def etag(self) -> str:
        """
        Return the ETag, without the content.

        Raises:
            AbsentError: there is no object.
            StoreError: S3 refuses or does not answer.
        """
        with self._declared("reading", "s3:GetObject"):
            return _etag(self._call(lambda s3: s3.head_object(**self._place)))

    def read(self) -> tuple[bytes, str]:
        """
        Return content and ETag.

        Raises:
            AbsentError: there is no object.
            RingUnreadableError: it is larger than any ring.
            StoreError: S3 refuses or does not answer.
        """

        def get(s3: S3Client) -> tuple[bytes, str]:
            answer = s3.get_object(**self._place)
            body: _Body = answer["Body"]  # type: ignore[assignment] # boto3 has no types
            with contextlib.closing(body):
                data = body.read(MOST_BYTES + 1)
                if len(data) <= MOST_BYTES:
                    # Only who reads to the end is told of an answer that broke off.
                    data += body.read(1)
            return data, _etag(answer)

        with self._declared("reading", "s3:GetObject"):
            data, etag = self._call(get)
        if len(data) > MOST_BYTES:
            raise too_large(self.name)
        return data, etag

    def write(self, data: bytes, expect: str | None) -> str:
        """
        Write where the ETag is still `expect`, or where nothing is (``None``).

        A write whose connection broke is tried again, so that it may conflict with itself.

        Returns:
            The new ETag.

        Raises:
            AbsentError: there is no bucket, or there was an object and is none any more.
            ConflictError: the condition does not hold.
            StoreError: S3 refuses or does not answer.
        """
        condition = {"IfNoneMatch": "*"} if expect is None else {"IfMatch": expect}

        def put(s3: S3Client) -> Mapping[str, object]:
            return s3.put_object(
                **self._place, **condition, Body=data, ContentType=CONTENT_TYPE
            )

        with self._declared("writing", "s3:PutObject"):
            return _etag(self._call(put))

    def delete(self) -> None:
        """
        Delete the object.

        Raises:
            StoreError: S3 refuses or does not answer.
        """
        with self._declared("deleting", "s3:DeleteObject"):
            self._call(lambda s3: s3.delete_object(**self._place))

    def create_bucket(self) -> None:
        """
        Make the bucket, closed to the public; a bucket of ours that is there by now is fine.

        Raises:
            StoreError: it cannot be made or closed.
        """
        bucket = self.bucket
        region = self._client.get().meta.region_name
        where: dict[str, object] = {}
        if region and region not in {"us-east-1", "aws-global"}:
            where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._call(lambda s3: s3.create_bucket(Bucket=bucket, **where))
        except Exception as error:
            trouble = aws_clients.trouble_of(error)
            if trouble is None:
                raise
            if trouble.code in {"BucketAlreadyOwnedByYou", "OperationAborted"}:
                # Somebody else of ours makes it, and closes it.
                return
            if trouble.code == "BucketAlreadyExists":
                raise StoreError(
                    f"The bucket {bucket} belongs to another account.",
                    hint="Take another name.",
                    detail=trouble.detail,
                ) from None
            doing = f"making the bucket {bucket}, which does not exist"
            raise _error(trouble, doing, self.bucket_remedy) from None
        self._close_bucket()

    def _close_bucket(self) -> None:
        bucket = self.bucket
        try:
            self._call(
                lambda s3: s3.put_public_access_block(
                    Bucket=bucket, PublicAccessBlockConfiguration=_BLOCKED
                )
            )
        except Exception as error:
            trouble = aws_clients.trouble_of(error)
            if trouble is None:
                raise
            # Servers that are not AWS have no such switch; their buckets are private.
            if trouble.code not in {"NotImplemented", "MethodNotAllowed"}:
                raise _error(
                    trouble,
                    f"blocking public access to the new bucket {bucket}",
                    f"Allow s3:PutBucketPublicAccessBlock on arn:aws:s3:::{bucket}, or block "
                    "it by hand, then try again.",
                ) from None

    @property
    def bucket_remedy(self) -> str:
        """
        What to do about a missing bucket.
        """
        return (
            "Create it, private, or allow s3:CreateBucket and "
            f"s3:PutBucketPublicAccessBlock on arn:aws:s3:::{self.bucket}."
        )

    def status_for_strangers(self) -> int:
        """
        Return the HTTP status that reading without credentials gets; 0 where there was none.
        """
        meta = self._client.get().meta
        try:
            stranger: S3Client = aws_clients.make_client(
                "s3",
                region=meta.region_name,
                endpoint=meta.endpoint_url,
                is_signed=False,
            )
            stranger.head_object(**self._place)
        except Exception as error:
            trouble = aws_clients.trouble_of(error)
            if trouble is None:
                raise
            return trouble.status
        return 200

    @property
    def _place(self) -> dict[str, object]:
        return {"Bucket": self.bucket, "Key": self.key}

    def _call(self, call: Callable[[S3Client], _T]) -> _T:
        return aws_clients.attempted(lambda: call(self._client.get()))

    @contextlib.contextmanager
    def _declared(self, doing: str, action: str) -> Iterator[None]:
        try:
            yield
        except KagimoriError:
            raise
        except Exception as error:
            trouble = aws_clients.trouble_of(error)
            if trouble is None:
                raise
            if trouble.code in _ABSENT:
                is_bucket = trouble.code == "NoSuchBucket"
                raise AbsentError(is_bucket=is_bucket) from None
            if trouble.code in _CHANGED:
                raise ConflictError("The ring changed since it was read.") from None
            remedy = f"Allow {action} on arn:aws:s3:::{self.bucket}/{self.key}."
            if trouble.action not in {"", action}:
                # Such as the right to use the KMS key that the bucket is encrypted with.
                remedy = f"Allow {trouble.action}."
            elif action == "s3:GetObject":
                remedy = (
                    f"{remedy[:-1]}, and s3:ListBucket on arn:aws:s3:::{self.bucket}, without "
                    "which S3 denies even what is not there yet."
                )
            raise _error(trouble, f"{doing} {self.name}", remedy) from None


def _etag(answer: Mapping[str, object]) -> str:
    etag = answer.get("ETag")
    if not isinstance(etag, str) or not etag:
        raise StoreError(
            "The server names no ETag.",
            hint="Take a server with conditional writes.",
        )
    return etag


def _error(trouble: aws_clients.Trouble, doing: str, remedy: str) -> StoreError:
    is_denied = trouble.is_denied
    return StoreError(
        f"S3 denies {doing}." if is_denied else f"S3 {trouble.says} ({doing}).",
        hint=remedy if is_denied else trouble.hint,
        detail=trouble.detail,
        transient=trouble.transient,
        retry_after=trouble.retry_after,
    )
