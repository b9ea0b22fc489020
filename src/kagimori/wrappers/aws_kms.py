"""
Wrapping by a symmetric key of AWS KMS.

    awskms:arn:aws:kms:REGION:ACCOUNT:key/ID        or ID, alias/NAME, an alias' ARN
        ?region=…     where neither the ARN nor boto3 says it
        &endpoint=…   an address instead of AWS's own
        &also=ARN     a further key, for reading; repeatable

The envelope is `kagimori.wrappers.envelope`'s. Its data key comes from ``GenerateDataKey``, not
from here by way of ``Encrypt``: no request carries a secret then, and the right is the one that
AWS's own policies for envelopes name. Both calls carry the encryption context
``{"purpose": "kagimori-ring", "key-id": id}``, which policies may ask for.

Rules of this module:

1. ``Decrypt`` always names a key that was configured. What an envelope names is compared with
   it and never sent: who writes the ring cannot have us call a key of theirs.
2. The envelope names the key by its ARN, as KMS told it, whatever it was configured by. The
   replicas of a multi-Region key are one key.
3. KMS finds the material of an earlier rotation by itself. An alias that points to another key
   since needs the earlier key's ARN in `also`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kagimori import aws_clients
from kagimori.addresses import Address
from kagimori.crypto.digests import equal
from kagimori.errors import ConfigError, KagimoriError, KeyWrapError
from kagimori.events import EventSink
from kagimori.keys.findings import Finding
from kagimori.keys.wrapping import WrappedSecret
from kagimori.wrappers.aws_kms_key import (
    DataKey,
    KmsClient,
    KmsKey,
    are_same,
    is_key_arn,
)
from kagimori.wrappers.envelope import DATA_KEY_BYTES, EnvelopeFormat, named

FORMAT = EnvelopeFormat("aws-kms", "AwsKmsXmlDecryptor")

_TRIAL = "examination"
# What KMS says of a ciphertext that is none, once it has let a caller through to the key.
_NO_CIPHERTEXT = ("InvalidCiphertextException", "IncorrectKeyException")


def open_wrapper(address: Address, events: EventSink) -> AwsKmsWrapper:
    """
    Return the wrapper of an ``awskms:`` address.

    Raises:
        ConfigError: the address is malformed.
    """
    address.allow("region", "endpoint", "also")
    return AwsKmsWrapper(
        address.path,
        also=address.options.get("also", ()),
        region=address.option("region"),
        endpoint=address.option("endpoint"),
    )


class AwsKmsWrapper:
    """
    Wraps by a key of AWS KMS. Thread-safe, and may be used after a fork.

    Args:
        key: ARN, id, alias name or alias ARN.
        also: ARNs of further keys, for reading.
        client: a boto3 client for KMS, or a function that makes one (which is better where
            processes fork), for all keys; left out: one for each region, with short timeouts.
        region: where the ARN does not say it; left out: boto3's own.
        endpoint: an address instead of AWS's own.

    Raises:
        ConfigError: a key, the region or the endpoint cannot be.
        InsecureConfigError: the endpoint is http, and not on this machine.
    """

    def __init__(
        self,
        key: str,
        *,
        also: Sequence[str] = (),
        client: KmsClient | Callable[[], KmsClient] | None = None,
        region: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        for other in also:
            if not is_key_arn(other):
                raise ConfigError(
                    f"{other!r} is no ARN of a key.",
                    hint="A further key for reading is named by arn:aws:kms:…:key/ID.",
                )
        # The answer to GenerateDataKey holds a data key in the clear.
        aws_clients.check_endpoint(endpoint)
        self._key = KmsKey(key, client=client, region=region, endpoint=endpoint)
        self._also = tuple(
            KmsKey(other, client=client, region=None, endpoint=endpoint)
            for other in also
        )

    @property
    def name(self) -> str:
        """
        The key as it was configured.
        """
        return f"AWS KMS {self._key.text}"

    @property
    def is_plaintext(self) -> bool:
        """
        False: secrets are wrapped.
        """
        return False

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        """
        Seal an element for the key id `context` under a new data key.

        Raises:
            KeyWrapError: KMS refuses or does not answer.
        """
        made = self._key.generate(context)
        return FORMAT.seal(
            plaintext,
            context,
            data_key=made.clear,
            wrapped_key=made.wrapped,
            wrapping_key=made.arn,
            key_version=made.material,
        )

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        """
        Whether the envelope is one of AWS KMS.
        """
        return FORMAT.matches(wrapped)

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        """
        Open the envelope of the key id `context`.

        Raises:
            KeyWrapError: it is of a key that was not configured, altered, or of another key
                id; or KMS refuses or does not answer.
        """
        envelope = FORMAT.read(wrapped, context)
        key = self._key_for(envelope.wrapping_key, context)
        opened = key.decrypt(envelope.wrapped_key, context)
        if not are_same(opened.arn, envelope.wrapping_key):
            raise _foreign(envelope.wrapping_key, context, self.name)
        return FORMAT.open(envelope, context, opened.clear)

    def key_of(self, wrapped: WrappedSecret) -> str | None:
        """
        Return the ARN, and the key material where KMS named it, that an envelope is under.
        """
        return FORMAT.key_of(wrapped)

    def newest(self) -> str:
        """
        Return the ARN and the key material that `wrap` would use now.

        Raises:
            KeyWrapError: KMS refuses or does not answer.
        """
        made = self._key.generate(_TRIAL)
        return named(made.arn, made.material)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try to make a data key and to decrypt it, and the further keys' right to decrypt.

        Nothing of it stays anywhere.
        """
        made = None
        try:
            made = self._key.generate(_TRIAL)
            text = f"AWS KMS made a data key under {made.arn}."
            wrap = Finding("wrap", ok=True, text=text)
        except KagimoriError as error:
            wrap = Finding("wrap", ok=False, text=error.text, remedy=error.hint)
        others = (_try_decrypt(key, None) for key in self._also)
        return wrap, _try_decrypt(self._key, made), *others

    def _key_for(self, arn: str, context: str) -> KmsKey:
        for key in (self._key, *self._also):
            if key.is_named(arn):
                return key
        if self._key.is_alias:
            return self._key
        raise _foreign(arn, context, self.name)

    def __repr__(self) -> str:
        return f"<AwsKmsWrapper {self._key.text}>"

    def __reduce__(self) -> str:
        raise TypeError("a wrapper is not pickled")


def _try_decrypt(key: KmsKey, made: DataKey | None) -> Finding:
    """
    Try to decrypt; without a data key, what KMS says of something else shows the right to.
    """
    try:
        opened = key.decrypt(made.wrapped if made else bytes(DATA_KEY_BYTES), _TRIAL)
    except KagimoriError as error:
        if made is not None or not error.detail.startswith(_NO_CIPHERTEXT):
            return Finding("unwrap", ok=False, text=error.text, remedy=error.hint)
    else:
        if made is None or not equal(opened.clear, made.clear):
            return Finding(
                "unwrap",
                ok=False,
                text=f"What {key.text} wrapped is decrypted to something else.",
                remedy="Check the endpoint: do not use this key.",
            )
    return Finding("unwrap", ok=True, text=f"AWS KMS decrypts by {key.text}.")


def _foreign(arn: str, context: str, name: str) -> KeyWrapError:
    return KeyWrapError(
        f"The key {context} is wrapped by {arn}, which is not {name}.",
        hint="If that key is yours, name it for reading too (also=ARN).",
    )
