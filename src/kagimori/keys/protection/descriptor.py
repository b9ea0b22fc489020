"""
What lies inside a ``<key>``: the algorithm and the master key, clear or wrapped.

`aspnet-data-protection.md` 2.3 and 2.4. The class in a type name is what counts, not assembly,
version or namespace's age: .NET itself reads old ones.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode
from collections.abc import Callable

from kagimori.errors import KeyRingError, RingMalformedError
from kagimori.keys.protection import xml
from kagimori.keys.protection.algorithms import (
    AES,
    ALGORITHMS,
    TRIPLE_DES,
    ProtectionAlgorithm,
    cbc_hmac,
    gcm,
    triple_des_hmac,
)
from kagimori.keys.wrapping import WrappedSecret

SECRET_TAG = f"{{{xml.DATA_PROTECTION}}}encryptedSecret"
_REQUIRES = f"{{{xml.DATA_PROTECTION}}}requiresEncryption"

_ASSEMBLY = "Microsoft.AspNetCore.DataProtection"
# A low version, so that older readers load the type too (2.3).
_SUFFIX = (
    f", {_ASSEMBLY}, Version=3.1.0.0, Culture=neutral, PublicKeyToken=adb9793829ddae60"
)
_MODEL = f"{_ASSEMBLY}.AuthenticatedEncryption.ConfigurationModel"
_DESERIALIZER = f"{_MODEL}.AuthenticatedEncryptorDescriptorDeserializer{_SUFFIX}"

NULL_DECRYPTOR = f"{_ASSEMBLY}.XmlEncryption.NullXmlDecryptor{_SUFFIX}"
CERTIFICATE_DECRYPTOR = f"{_ASSEMBLY}.XmlEncryption.EncryptedXmlDecryptor{_SUFFIX}"

_AES_NAMES = frozenset(
    {"aes", "aesmanaged", "aescng", "aescryptoserviceprovider", "rijndaelmanaged"}
)
_TRIPLE_DES_NAMES = frozenset(
    {"3des", "3des_112", "tripledes", "tripledescng", "tripledescryptoserviceprovider"}
)
_CIPHERS = {
    **dict.fromkeys(_AES_NAMES, (AES, cbc_hmac, ("128", "192", "256"))),
    **dict.fromkeys(_TRIPLE_DES_NAMES, (TRIPLE_DES, triple_des_hmac, ("128", "192"))),
}
# By letters and digits alone: .NET has HMACSHA3_256, CNG SHA3-256.
_DIGESTS = {
    **{name: name for name in ("md5", "sha1", "sha256", "sha384", "sha512")},
    "sha3256": "sha3_256",
    "sha3384": "sha3_384",
    "sha3512": "sha3_512",
}
_NESTED_SECRETS = 16

Unwrap = Callable[[WrappedSecret, str], str]


def class_name(type_name: str) -> str:
    """
    Return the class in an assembly-qualified .NET type name.
    """
    return type_name.partition(",")[0].strip().rpartition(".")[2]


def read_algorithm(descriptor: xml.Element) -> ProtectionAlgorithm:
    """
    Return the algorithm that a key's outer ``<descriptor>`` names.

    Raises:
        KeyRingError: it is not known here.
        RingMalformedError: it names none.
    """
    kind = class_name(descriptor.get("deserializerType", ""))
    inner = xml.only_child(descriptor)
    cipher = _attribute(inner, "encryption", "algorithm")
    if kind == "AuthenticatedEncryptorDescriptorDeserializer":
        name = cipher
        if "_CBC" in cipher:
            name += "_" + _attribute(inner, "validation", "algorithm")
        row = ALGORITHMS.get(name)
        if row is None:
            raise KeyRingError(f"The algorithm {name!r} is not known here.")
        return row
    known = _CIPHERS.get(class_name(cipher).lower())
    if known is None:
        raise KeyRingError(f"The cipher {cipher!r} is not known here.")
    family, cbc, lengths = known
    bits = _attribute(inner, "encryption", "keyLength")
    if bits not in lengths:
        raise KeyRingError(f"{family} has no key of {bits!r} bits.")
    if kind == "CngGcmAuthenticatedEncryptorDescriptorDeserializer" and family == AES:
        return gcm(int(bits))
    if kind == "CngCbcAuthenticatedEncryptorDescriptorDeserializer":
        digest = _attribute(inner, "hash", "algorithm")
    elif kind == "ManagedAuthenticatedEncryptorDescriptorDeserializer":
        digest = class_name(_attribute(inner, "validation", "algorithm"))
        digest = digest.upper().removeprefix("HMAC")
    else:
        raise KeyRingError(f"The descriptor {kind!r} is not known here.")
    mac = _DIGESTS.get(re.sub("[^a-z0-9]", "", digest.lower()))
    if mac is None:
        raise KeyRingError(f"The digest {digest!r} is not known here.")
    return cbc(int(bits), mac)


def _attribute(inner: xml.Element, tag: str, name: str) -> str:
    found = inner.find(tag)
    value = None if found is None else found.get(name)
    if value is None:
        raise RingMalformedError(f"A descriptor in the ring lacks {tag}/{name}.")
    return value.strip()


def read_secret(
    key_id: str, text: str, unwrap: Unwrap
) -> tuple[ProtectionAlgorithm, bytes]:
    """
    Return algorithm and master key of a key.

    Args:
        text: the ``<key>`` element as stored.
        unwrap: opens what is wrapped; takes the envelope and the key's id.

    Raises:
        RingMalformedError: the descriptor is not as it must be.
        KeyWrapError: as `unwrap` raises.
        KeyRingError: the algorithm is not known here.
    """
    descriptor = xml.parse(text).find("descriptor")
    if descriptor is None:
        raise RingMalformedError(f"The key {key_id} has no descriptor.")
    open_secrets(descriptor, key_id, unwrap)
    inner = xml.only_child(descriptor)
    master = inner.find("masterKey")
    if master is None:
        raise RingMalformedError(f"The key {key_id} holds no master key.")
    try:
        secret = binascii.a2b_base64("".join(xml.text_of(master).split()))
    except ValueError:
        secret = b""
    if not secret:
        raise RingMalformedError(f"The master key of {key_id} is malformed.")
    return read_algorithm(descriptor), secret


def open_secrets(descriptor: xml.Element, key_id: str, unwrap: Unwrap) -> None:
    """
    Put what was wrapped back in its place, in an outer ``<descriptor>``.

    Raises:
        KeyWrapError: as `unwrap` raises.
        RingMalformedError: an envelope is not as it must be.
    """
    for _ in range(_NESTED_SECRETS):
        parents = {child: parent for parent in descriptor.iter() for child in parent}
        wrapped = next(descriptor.iter(SECRET_TAG), None)
        if wrapped is None:
            return
        envelope = WrappedSecret(
            wrapped.get("decryptorType", ""), xml.write(xml.only_child(wrapped))
        )
        opened = xml.parse(unwrap(envelope, key_id), what="An unwrapped secret")
        parent = parents[wrapped]
        parent[list(parent).index(wrapped)] = opened
    raise RingMalformedError(f"The secret of key {key_id} is wrapped too often.")


def secret_text(master: bytes) -> str:
    """
    Return the ``<masterKey>`` element that a wrapper wraps (2.4).
    """
    root = xml.element("masterKey", {_REQUIRES: "true"})
    xml.comment(root, " Warning: the key below is in an unencrypted form. ")
    xml.child(root, "value", text=b64encode(master).decode("ascii"))
    return xml.write(root)


def null_wrap(plaintext: str) -> WrappedSecret:
    """
    Return the envelope of .NET's null encryptor, which leaves the secret readable (3.3).
    """
    root = xml.element("unencryptedKey")
    xml.comment(root, " This key is not encrypted. ")
    root.append(xml.parse(plaintext, what="A secret"))
    return WrappedSecret(NULL_DECRYPTOR, xml.write(root))


def is_null(wrapped: WrappedSecret) -> bool:
    """
    Whether an envelope is that of .NET's null encryptor.
    """
    return class_name(wrapped.decryptor_type) == "NullXmlDecryptor"


def null_unwrap(wrapped: WrappedSecret) -> str:
    """
    Return what `null_wrap` was given.

    Raises:
        RingMalformedError: this is no such envelope.
    """
    root = xml.parse(wrapped.child, what="A clear secret")
    return xml.write(xml.only_child(root))


def write(algorithm: ProtectionAlgorithm, wrapped: WrappedSecret) -> xml.Element:
    """
    Return the outer ``<descriptor>`` of a key of one of the nine `ALGORITHMS`.
    """
    outer = xml.element("descriptor", {"deserializerType": _DESERIALIZER})
    inner = xml.child(outer, "descriptor")
    cipher, _, mac = algorithm.name.partition("_HMAC")
    xml.child(inner, "encryption", {"algorithm": cipher})
    if mac:
        xml.child(inner, "validation", {"algorithm": f"HMAC{mac}"})
    else:
        xml.comment(inner, " AES-GCM carries its own tag: no validation algorithm. ")
    secret = xml.child(inner, SECRET_TAG, {"decryptorType": wrapped.decryptor_type})
    secret.append(xml.parse(wrapped.child, what="A wrapped secret"))
    return outer
