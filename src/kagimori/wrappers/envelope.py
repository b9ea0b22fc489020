"""
The envelope of wrapping keys that only seal something short: KMS, transit engines, HSMs.

The secret is sealed by a data key of its own; the wrapping key wraps that data key. The child of
``encryptedSecret``, in no namespace (`docs/ring-envelope.md`)::

    <envelope version="1" kind="aws-kms">
      <wrappingKey version="…">arn:aws:kms:…</wrappingKey>   (version: where the service names one)
      <dataKey>base64 of the data key as the wrapping key wrapped it</dataKey>
      <value nonce="base64, 12 bytes">base64 of AES-256-GCM(data key, nonce, element) || tag</value>
    </envelope>

    AAD = UTF-8 of the six lines: "kagimori-envelope-1", kind, wrapping key, its version or an
          empty line, wrapped data key in base64, key id

Rules of this module:

1. Each envelope has a fresh data key, so no nonce is ever used twice under one.
2. The key's id, the wrapping key's name and version and the wrapped data key are authenticated:
   an envelope moved to another key, or naming another wrapping key, does not open.
3. The name in an envelope is a claim until `EnvelopeFormat.open` has verified it. A wrapper never
   sends anything to where only an envelope says: it compares with what it was configured with.
4. Each kind has its own decryptor type, so that wrappers tell their envelopes apart unopened.
   ASP.NET Core knows none of them.
"""

from __future__ import annotations

import binascii
import contextlib
import re
from base64 import b64encode
from dataclasses import dataclass, field
from secrets import token_bytes

from kagimori.crypto.aead import NONCE_BYTES, TAG_BYTES, gcm_open, gcm_seal
from kagimori.errors import KeyWrapError, ProtectionError, RingMalformedError
from kagimori.keys.protection import descriptor, xml
from kagimori.keys.wrapping import WrappedSecret

DATA_KEY_BYTES = 32
MOST_WRAPPED_BYTES = 16 * 1024
"""More than any service makes of 32 bytes; what is longer is not sent anywhere."""

_MOST_NAME = 2048
# Printable and on one line, so that the lines of the AAD cannot be shifted.
_NAME = re.compile(r"[!-~]([ -~]*[!-~])?")
_KIND = re.compile(r"[a-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    What an envelope says, not yet verified.

    Attributes:
        wrapping_key: the full name of the wrapping key, as its service gives it.
        key_version: of the wrapping key; empty where the name holds it or the service has none.
        wrapped_key: the data key as the wrapping key wrapped it.
    """

    wrapping_key: str
    key_version: str
    wrapped_key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    sealed: bytes = field(repr=False)

    @property
    def key(self) -> str:
        """
        Name and version of the wrapping key in one text, for people and to be compared.
        """
        return named(self.wrapping_key, self.key_version)


def named(wrapping_key: str, key_version: str) -> str:
    """
    Return name and version of a wrapping key in one text.
    """
    return f"{wrapping_key}#{key_version}" if key_version else wrapping_key


def new_data_key() -> bytes:
    """
    Draw a data key, for services that make none.
    """
    return token_bytes(DATA_KEY_BYTES)


@dataclass(frozen=True, slots=True)
class EnvelopeFormat:
    """
    Envelopes of one kind of wrapping key. Pure: it calls nobody.

    Args:
        kind: in lower case with hyphens, such as ``aws-kms``; authenticated.
        decryptor: the class name that readers choose by, such as ``AwsKmsXmlDecryptor``.
    """

    kind: str
    decryptor: str

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise ValueError(self.kind)

    @property
    def decryptor_type(self) -> str:
        """
        The type name in ``encryptedSecret``.
        """
        return f"Kagimori.DataProtection.{self.decryptor}, Kagimori"

    def matches(self, wrapped: WrappedSecret) -> bool:
        """
        Whether this is an envelope of this kind, judged by its type alone.
        """
        ours = descriptor.class_name(self.decryptor_type)
        return descriptor.class_name(wrapped.decryptor_type) == ours

    def seal(
        self,
        plaintext: str,
        context: str,
        *,
        data_key: bytes,
        wrapped_key: bytes,
        wrapping_key: str,
        key_version: str = "",
    ) -> WrappedSecret:
        """
        Seal an element for the key id `context` under a data key that is used for nothing else.

        Args:
            data_key: 32 bytes, in the clear.
            wrapped_key: the same, wrapped.
            wrapping_key: the full name of the key that wrapped it: printable ASCII.
            key_version: its version, where the name does not hold it.

        Raises:
            KeyWrapError: the service answered something that no envelope can hold.
        """
        if (
            len(data_key) != DATA_KEY_BYTES
            or not 0 < len(wrapped_key) <= MOST_WRAPPED_BYTES
            or not _is_name(wrapping_key)
            or (key_version and not _is_name(key_version))
        ):
            raise KeyWrapError(
                "The wrapping key's service gave an answer that cannot be one of its own.",
                hint="Check the endpoint: something else answers there.",
            )
        nonce = token_bytes(NONCE_BYTES)
        aad = self._aad(wrapping_key, key_version, wrapped_key, context)
        sealed = gcm_seal(data_key, nonce, plaintext.encode(), aad)
        root = xml.element("envelope", {"version": "1", "kind": self.kind})
        version = {"version": key_version} if key_version else {}
        xml.child(root, "wrappingKey", version, wrapping_key)
        xml.child(root, "dataKey", text=_b64(wrapped_key))
        xml.child(root, "value", {"nonce": _b64(nonce)}, _b64(sealed))
        return WrappedSecret(self.decryptor_type, xml.write(root))

    def read(self, wrapped: WrappedSecret, context: str) -> Envelope:
        """
        Return what the envelope of the key id `context` says; `open` verifies it.

        Raises:
            KeyWrapError: it is malformed, of another kind, or of a newer version.
        """
        try:
            root = xml.parse(wrapped.child, what="An envelope")
            envelope = self._parts(root)
        except (ValueError, RingMalformedError):
            envelope = None
        if envelope is None:
            raise KeyWrapError(
                f"The envelope of the key {context} is malformed, or of a newer version.",
                hint="Restore the ring from a backup, or upgrade Kagimori.",
            )
        return envelope

    def open(self, envelope: Envelope, context: str, data_key: bytes) -> str:
        """
        Verify an envelope and return the element in it.

        Args:
            data_key: what the wrapping key made of `Envelope.wrapped_key`.

        Raises:
            KeyWrapError: it was altered, made for another key id, or that is not its data key.
        """
        aad = self._aad(
            envelope.wrapping_key, envelope.key_version, envelope.wrapped_key, context
        )
        opened = None
        if len(data_key) == DATA_KEY_BYTES:
            with contextlib.suppress(ProtectionError, UnicodeDecodeError):
                opened = gcm_open(
                    data_key, envelope.nonce, envelope.sealed, aad
                ).decode()
        if opened is None:
            raise KeyWrapError(
                f"The envelope of the key {context} was altered, or made for another key.",
                hint="Restore the ring from a backup.",
            )
        return opened

    def key_of(self, wrapped: WrappedSecret) -> str | None:
        """
        Return which wrapping key an envelope names, ``None`` where it is none of this kind.
        """
        if not self.matches(wrapped):
            return None
        try:
            return self.read(wrapped, "").key
        except KeyWrapError:
            return None

    def _aad(self, name: str, version: str, wrapped_key: bytes, context: str) -> bytes:
        lines = (
            "kagimori-envelope-1",
            self.kind,
            name,
            version,
            _b64(wrapped_key),
            context,
        )
        return "\n".join(lines).encode()

    def _parts(self, root: xml.Element) -> Envelope | None:
        """
        Return what an envelope holds, ``None`` if it is none; bad base64 is a ValueError.
        """
        parts = xml.children(root)
        tags = [part.tag for part in parts]
        if (root.tag, tags) != ("envelope", ["wrappingKey", "dataKey", "value"]):
            return None
        name, data_key, value = parts
        if (
            root.attrib != {"version": "1", "kind": self.kind}
            or set(name.attrib) - {"version"}
            or data_key.attrib
            or set(value.attrib) != {"nonce"}
            or any(len(part) for part in parts)
        ):
            return None
        key, version = xml.text_of(name), name.get("version", "")
        wrapped_key = _raw(xml.text_of(data_key), MOST_WRAPPED_BYTES)
        nonce = _raw(value.get("nonce", ""), NONCE_BYTES)
        sealed = _raw(xml.text_of(value), xml.MOST_BYTES)
        if (
            not _is_name(key)
            or (name.get("version") is not None and not _is_name(version))
            or not wrapped_key
            or len(nonce) != NONCE_BYTES
            or len(sealed) <= TAG_BYTES
        ):
            return None
        return Envelope(key, version, wrapped_key, nonce, sealed)


def _is_name(text: str) -> bool:
    return len(text) <= _MOST_NAME and _NAME.fullmatch(text) is not None


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _raw(text: str, most: int) -> bytes:
    raw = binascii.a2b_base64(text, strict_mode=True)
    # Stray trailing bits would be a second spelling of the same bytes.
    if len(raw) > most or _b64(raw) != text:
        raise ValueError
    return raw
