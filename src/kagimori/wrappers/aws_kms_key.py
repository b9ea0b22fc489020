"""
One key of AWS KMS, as it was configured: its names, its calls, and what their errors mean.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kagimori import aws_clients
from kagimori.aws_clients import Trouble
from kagimori.errors import ConfigError, KagimoriError, KeyWrapError
from kagimori.per_process import PerProcess

_ARN = re.compile(
    r"(?P<partition>arn:aws[a-z-]*):kms:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):"
    r"(?:key/(?P<id>[A-Za-z0-9-]{1,128})|alias/[A-Za-z0-9/_-]{1,250})"
)
_SHORT = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}|[A-Za-z0-9-]{1,128}")
_GENERATE = "kms:GenerateDataKey"
_DECRYPT = "kms:Decrypt"

# AWS's own codes: what they say of the key, and what to do.
_REFUSALS: Mapping[str, tuple[str, str]] = {
    "NotFoundException": (
        "there is no such key",
        "Check its ARN or alias, the account and the region.",
    ),
    "DisabledException": (
        "the key is disabled",
        "Enable it (kms:EnableKey); until then nothing that it wrapped is opened.",
    ),
    "KMSInvalidStateException": (
        "the key's state does not allow it",
        "Cancel its deletion (kms:CancelKeyDeletion) or import its material; then enable it.",
    ),
    "InvalidKeyUsageException": (
        "the key is of another kind",
        "Take a symmetric key for encryption (SYMMETRIC_DEFAULT).",
    ),
    "UnsupportedOperationException": (
        "the key is of another kind",
        "Take a symmetric key for encryption (SYMMETRIC_DEFAULT).",
    ),
    "InvalidCiphertextException": (
        "the envelope was altered, or made for another key id",
        "Restore the ring from a backup.",
    ),
    "IncorrectKeyException": (
        "another key wrapped it",
        "Name that key for reading too (also=ARN).",
    ),
    "KeyUnavailableException": (
        "the key's store is not connected",
        "Look at the custom key store, then try again.",
    ),
    "DependencyTimeoutException": ("the service is slow", "Try again."),
}


class KmsClient(Protocol):
    """
    What is called of a boto3 client for KMS.
    """

    def generate_data_key(self, **arguments: object) -> Mapping[str, object]: ...  # noqa: D102

    def decrypt(self, **arguments: object) -> Mapping[str, object]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class DataKey:
    """
    What KMS made or opened.

    Attributes:
        clear: the data key itself.
        wrapped: the same, wrapped; empty where it was opened.
        arn: of the key that did it.
        material: the id of that key's material, where KMS names it.
    """

    clear: bytes = field(repr=False)
    wrapped: bytes = field(repr=False)
    arn: str
    material: str


class KmsKey:
    """
    A key, and who is asked about it. Thread-safe.

    Args:
        text: ARN, id, alias name or alias ARN.
        client: left out: one for the key's region is made when it is needed.

    Raises:
        ConfigError: there can be no such key, or it is in another region than `region`.
    """

    def __init__(
        self,
        text: str,
        *,
        client: KmsClient | Callable[[], KmsClient] | None,
        region: str | None,
        endpoint: str | None,
    ) -> None:
        arn = _ARN.fullmatch(text)
        if not (arn or _SHORT.fullmatch(text)):
            raise ConfigError(
                f"No key of AWS KMS is called {text!r}.",
                hint="Give its ARN, its id, or alias/NAME.",
            )
        if arn and region not in {None, arn["region"]}:
            raise ConfigError(f"The key {text} is in another region than {region}.")
        place = arn["region"] if arn else region

        def make() -> KmsClient:
            own: KmsClient = aws_clients.make_client(
                "kms", region=place, endpoint=endpoint
            )
            return own

        self.text = text
        self._client: PerProcess[KmsClient] = aws_clients.per_process(
            make if client is None else client
        )

    @property
    def is_alias(self) -> bool:
        """
        Whether only KMS knows which key is meant.
        """
        return self.text.rpartition(":")[2].startswith("alias/")

    def is_named(self, arn: str) -> bool:
        """
        Whether this is certainly the key of an ARN.
        """
        if _ARN.fullmatch(self.text):
            return are_same(self.text, arn)
        return not self.is_alias and arn.endswith(f":key/{self.text}")

    def generate(self, context: str) -> DataKey:
        """
        Have a data key made for the key id `context`.

        Raises:
            KeyWrapError: KMS refuses, does not answer, or answers for another key.
        """

        def call() -> Mapping[str, object]:
            return self._client.get().generate_data_key(
                KeyId=self.text, KeySpec="AES_256", EncryptionContext=_context(context)
            )

        with _declared(_GENERATE, self.text):
            answer = aws_clients.attempted(call)
        arn = _text(answer, "KeyId")
        if not self.is_named(arn) and not (self.is_alias and is_key_arn(arn)):
            raise _impossible()
        return DataKey(
            _bytes(answer, "Plaintext"),
            _bytes(answer, "CiphertextBlob"),
            arn,
            _text(answer, "KeyMaterialId"),
        )

    def decrypt(self, wrapped: bytes, context: str) -> DataKey:
        """
        Open a data key of the key id `context`; KMS refuses one that another key wrapped.

        Raises:
            KeyWrapError: KMS refuses or does not answer.
        """

        def call() -> Mapping[str, object]:
            return self._client.get().decrypt(
                KeyId=self.text,
                CiphertextBlob=wrapped,
                EncryptionContext=_context(context),
            )

        with _declared(_DECRYPT, self.text):
            answer = aws_clients.attempted(call)
        return DataKey(
            _bytes(answer, "Plaintext"),
            b"",
            _text(answer, "KeyId"),
            _text(answer, "KeyMaterialId"),
        )


def is_key_arn(text: str) -> bool:
    """
    Whether this is the ARN of a key, and of no alias.
    """
    found = _ARN.fullmatch(text)
    return found is not None and found["id"] is not None


def are_same(one: str, other: str) -> bool:
    """
    Whether two ARNs name one key; the replicas of a multi-Region key differ in the region.
    """
    left, right = _ARN.fullmatch(one), _ARN.fullmatch(other)
    if left is None or right is None or left["id"] is None:
        return False
    parts = ["partition", "account", "id"]
    if not left["id"].startswith("mrk-"):
        parts.append("region")
    return all(left[part] == right[part] for part in parts)


def _context(key_id: str) -> dict[str, str]:
    return {"purpose": "kagimori-ring", "key-id": key_id}


@contextlib.contextmanager
def _declared(action: str, key: str) -> Iterator[None]:
    try:
        yield
    except KagimoriError:
        raise
    except Exception as error:
        trouble = aws_clients.trouble_of(error)
        if trouble is None:
            raise
        raise _error(trouble, action, key) from None


def _error(trouble: Trouble, action: str, key: str) -> KeyWrapError:
    if trouble.is_denied:
        text = f"AWS KMS denies {action} on {key}."
        hint = (
            f"Allow {action} on that key, in the policy of the role and in the key's own. A key "
            "that is not there, or in another account or region, is denied likewise."
        )
    elif trouble.code in _REFUSALS:
        says, hint = _REFUSALS[trouble.code]
        text = f"AWS KMS refuses {action} on {key}: {says}."
    else:
        text, hint = f"AWS KMS {trouble.says} ({action} on {key}).", trouble.hint
    return KeyWrapError(
        text,
        hint=hint,
        detail=trouble.detail,
        transient=trouble.transient,
        retry_after=trouble.retry_after,
    )


def _impossible() -> KeyWrapError:
    return KeyWrapError(
        "AWS KMS gave an answer that cannot be its own.",
        hint="Check the endpoint: something else answers there.",
    )


def _bytes(answer: Mapping[str, object], name: str) -> bytes:
    value = answer.get(name)
    if not isinstance(value, bytes):
        raise _impossible()
    return value


def _text(answer: Mapping[str, object], name: str) -> str:
    value = answer.get(name, "")
    if not isinstance(value, str):
        raise _impossible()
    return value
