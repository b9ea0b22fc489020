"""
The envelope of Azure Key Vault, as ASP.NET Core Data Protection has it. Pure: it calls nobody.

    <encryptedKey>
      <!-- This key is encrypted with Azure Key Vault. -->
      <kid>https://{vault}.vault.azure.net/keys/{name}/{version}</kid>
      <key>base64 of the wrapped data key</key>
      <iv>base64, 16 bytes</iv>
      <value>base64 of AES-CBC-PKCS#7(data key, iv, the element with BOM and declaration)</value>
    </encryptedKey>

Rules of this module (`aspnet-data-protection.md` 3.1):

1. The data key is 16 bytes, as .NET writes it; 16, 24 and 32 are read, with and without BOM and
   declaration.
2. The wrapping algorithm is RSA-OAEP (with SHA-1), which .NET alone knows. RSA-OAEP-256 is said by
   an attribute ``algorithm`` of ours on ``<key>``; .NET cannot open such an envelope.
3. The format carries no tag and cannot bind the key's id: integrity rests on who may write the
   store. Whatever does not fit is one error.
"""

from __future__ import annotations

import binascii
import contextlib
from base64 import b64encode
from dataclasses import dataclass, field

from kagimori.crypto.aead import BLOCK_BYTES, cbc_decrypt, cbc_encrypt
from kagimori.errors import KeyWrapError, ProtectionError, RingMalformedError
from kagimori.keys.protection import descriptor, xml
from kagimori.keys.wrapping import WrappedSecret

# Without version and token, so that every build of the package finds its own class.
DECRYPTOR = (
    "Azure.Extensions.AspNetCore.DataProtection.Keys.AzureKeyVaultXmlDecryptor, "
    "Azure.Extensions.AspNetCore.DataProtection.Keys"
)
DATA_KEY_BYTES = 16
RSA_OAEP = "RSA-OAEP"
ALGORITHMS = (RSA_OAEP, "RSA-OAEP-256")

_CLASS = descriptor.class_name(DECRYPTOR)
_READ_BYTES = frozenset({16, 24, 32})
_MOST_WRAPPED = 1024
_MOST_KID = 1024
_ALGORITHM = f"{{{xml.KAGIMORI}}}algorithm"


@dataclass(frozen=True, slots=True)
class KeyVaultEnvelope:
    """
    What an envelope says, not verified: whoever writes the store may say anything.

    Attributes:
        kid: the versioned id of the vault's key.
        wrapped_key: the data key as the vault's key wrapped it.
    """

    kid: str
    wrapped_key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    value: bytes = field(repr=False)
    algorithm: str = RSA_OAEP


def matches(wrapped: WrappedSecret) -> bool:
    """
    Whether an envelope is one of Key Vault, of today's package for .NET or of the one before.
    """
    return descriptor.class_name(wrapped.decryptor_type) == _CLASS


def encrypt(plaintext: str, data_key: bytes, iv: bytes) -> bytes:
    """
    Return what ``<value>`` holds for an element.

    Raises:
        RingMalformedError: `plaintext` is no element.
    """
    element = xml.write(xml.parse(plaintext, what="A secret"))
    data = f"{xml.BOM}{xml.DECLARATION}{element}".encode()
    return cbc_encrypt(data_key, iv, data)


def decrypt(envelope: KeyVaultEnvelope, data_key: bytes, context: str) -> str:
    """
    Return the element in an envelope.

    Raises:
        KeyWrapError: it was altered, or that is not its data key.
    """
    opened = None
    if len(data_key) in _READ_BYTES:
        # What the padding or the parser say depends on the plaintext: none of it is told.
        with contextlib.suppress(ProtectionError, RingMalformedError):
            data = cbc_decrypt(data_key, envelope.iv, envelope.value)
            opened = xml.write(xml.parse(data, what="An unwrapped secret"))
    if opened is None:
        raise KeyWrapError(
            f"The envelope of the key {context} was altered.",
            hint="Restore the ring from a backup.",
        )
    return opened


def write(envelope: KeyVaultEnvelope) -> WrappedSecret:
    """
    Return an envelope as it is stored.
    """
    root = xml.element("encryptedKey")
    xml.comment(root, " This key is encrypted with Azure Key Vault. ")
    xml.child(root, "kid", text=envelope.kid)
    named = {} if envelope.algorithm == RSA_OAEP else {_ALGORITHM: envelope.algorithm}
    xml.child(root, "key", named, _b64(envelope.wrapped_key))
    xml.child(root, "iv", text=_b64(envelope.iv))
    xml.child(root, "value", text=_b64(envelope.value))
    return WrappedSecret(DECRYPTOR, xml.write(root))


def read(wrapped: WrappedSecret, context: str) -> KeyVaultEnvelope:
    """
    Return what an envelope says.

    Raises:
        KeyWrapError: it is malformed.
    """
    try:
        envelope = _parts(xml.parse(wrapped.child, what="A Key Vault envelope"))
    except (ValueError, RingMalformedError):
        envelope = None
    if envelope is None:
        raise KeyWrapError(
            f"The envelope of the key {context} is none of Azure Key Vault.",
            hint="Restore the ring from a backup.",
        )
    return envelope


def _parts(root: xml.Element) -> KeyVaultEnvelope | None:
    found = {name: root.findall(name) for name in ("kid", "key", "iv", "value")}
    if root.tag != "encryptedKey" or any(len(nodes) != 1 for nodes in found.values()):
        return None
    (kid,), (key,), (iv,), (value,) = found.values()
    envelope = KeyVaultEnvelope(
        xml.text_of(kid),
        _raw(key),
        _raw(iv),
        _raw(value),
        key.get(_ALGORITHM, RSA_OAEP),
    )
    is_whole = (
        0 < len(envelope.kid) <= _MOST_KID
        and 0 < len(envelope.wrapped_key) <= _MOST_WRAPPED
        and len(envelope.iv) == BLOCK_BYTES
        and envelope.algorithm in ALGORITHMS
    )
    return envelope if is_whole else None


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _raw(node: xml.Element) -> bytes:
    return binascii.a2b_base64("".join(xml.text_of(node).split()), strict_mode=True)
