"""
Wrapping by an X.509 certificate: W3C XML Encryption, as ASP.NET Core Data Protection has it.

Rules of this module (`aspnet-data-protection.md` 3.2):

1. Written with RSA-OAEP; read with OAEP and with the PKCS#1 v1.5 that .NET writes.
2. The key is found by the thumbprint of the certificate in the envelope. Several certificates
   may be given for reading, so that one can be renewed; dates of validity do not matter.
3. No transforms, no references: anything but the one shape is refused.
4. The format carries no tag and cannot bind the key's id: integrity rests on who may write the
   store.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Sequence

from kagimori.crypto import rsa_envelope
from kagimori.crypto.pkcs12 import Identity, thumbprint
from kagimori.errors import ConfigError, KeyWrapError, RingMalformedError
from kagimori.keys.protection import descriptor, xml
from kagimori.keys.wrapping import WrappedSecret

_ENC = "http://www.w3.org/2001/04/xmlenc#"
_SIG = "http://www.w3.org/2000/09/xmldsig#"
_AES256 = f"{_ENC}aes256-cbc"
_OAEP = f"{_ENC}rsa-oaep-mgf1p"
_PKCS1 = f"{_ENC}rsa-1_5"
_CLASS = descriptor.class_name(descriptor.CERTIFICATE_DECRYPTOR)


class CertificateWrapper:
    """
    Wraps by a certificate, and unwraps by it and by others.

    Args:
        identity: what new keys are wrapped by.
        also_unwrap: further certificates with their keys, for reading.

    Raises:
        ConfigError: the certificate comes without its private key; what it wrapped could not
            be read back.
    """

    def __init__(
        self, identity: Identity, also_unwrap: Sequence[Identity] = ()
    ) -> None:
        if identity.private_key is None:
            raise ConfigError(
                f"The certificate {identity.thumbprint} comes without its private key.",
                hint="Give a .pfx or a PEM file that holds both.",
            )
        self._identity = identity
        self._known = {one.thumbprint: one for one in (*also_unwrap, identity)}

    @property
    def name(self) -> str:
        """
        The certificate's thumbprint and subject.
        """
        return f"certificate {self._identity.thumbprint} ({self._identity.subject})"

    @property
    def is_plaintext(self) -> bool:
        """
        False: secrets are wrapped.
        """
        return False

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        """
        Encrypt an element to the certificate.
        """
        key, data = rsa_envelope.seal(self._identity.public_key, plaintext.encode())
        root = xml.element(f"{{{_ENC}}}EncryptedData", {"Type": f"{_ENC}Element"})
        xml.child(root, f"{{{_ENC}}}EncryptionMethod", {"Algorithm": _AES256})
        info = xml.child(root, f"{{{_SIG}}}KeyInfo")
        encrypted_key = xml.child(info, f"{{{_ENC}}}EncryptedKey")
        xml.child(encrypted_key, f"{{{_ENC}}}EncryptionMethod", {"Algorithm": _OAEP})
        names = ("KeyInfo", "X509Data", "X509Certificate")
        node = encrypted_key
        for name in names:
            node = xml.child(node, f"{{{_SIG}}}{name}")
        node.text = _b64(self._identity.der)
        _cipher(encrypted_key, key)
        _cipher(root, data)
        return WrappedSecret(descriptor.CERTIFICATE_DECRYPTOR, xml.write(root))

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        """
        Whether the envelope is one of a certificate.
        """
        return descriptor.class_name(wrapped.decryptor_type) == _CLASS

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        """
        Decrypt an envelope by the certificate that it names.

        Raises:
            KeyWrapError: none of our certificates, another shape, or an altered envelope.
        """
        try:
            named, is_oaep, key, data = _parts(wrapped)
        except (ValueError, RingMalformedError):
            raise KeyWrapError(
                f"The envelope of the key {context} is no XML Encryption that a ring may hold.",
                hint="Restore the ring from a backup.",
            ) from None
        identity = self._known.get(named)
        if identity is None or identity.private_key is None:
            ours = ", ".join(sorted(self._known))
            raise KeyWrapError(
                f"The key {context} is wrapped by the certificate {named}, which is not at hand "
                f"(only {ours}).",
                hint="Name that certificate for reading too.",
            )
        opened = rsa_envelope.open_(identity.private_key, key, data, is_oaep=is_oaep)
        try:
            return xml.write(xml.parse(opened, what="An unwrapped secret"))
        except RingMalformedError:
            # Without a tag this is how an altered envelope shows; nothing of it is quoted.
            raise KeyWrapError(
                f"The envelope of the key {context} was altered.",
                hint="Restore the ring from a backup.",
            ) from None

    def key_of(self, wrapped: WrappedSecret) -> str | None:
        """
        Return the thumbprint of the certificate that an envelope needs, ``None`` if it is none.
        """
        try:
            return _parts(wrapped)[0]
        except (ValueError, RingMalformedError):
            return None

    def newest(self) -> str:
        """
        Return the thumbprint of the certificate that wraps.
        """
        return self._identity.thumbprint

    def __repr__(self) -> str:
        return f"<CertificateWrapper {self._identity.thumbprint}>"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")


def _cipher(parent: xml.Element, raw: bytes) -> None:
    data = xml.child(parent, f"{{{_ENC}}}CipherData")
    xml.child(data, f"{{{_ENC}}}CipherValue", text=_b64(raw))


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _parts(wrapped: WrappedSecret) -> tuple[str, bool, bytes, bytes]:
    root = xml.parse(wrapped.child, what="A certificate envelope")
    if root.tag != f"{{{_ENC}}}EncryptedData" or _method(root) != _AES256:
        raise ValueError
    key = _only(_only(root, _SIG, "KeyInfo"), _ENC, "EncryptedKey")
    transport = _method(key)
    if transport not in {_OAEP, _PKCS1}:
        raise ValueError
    holder = _only(_only(key, _SIG, "KeyInfo"), _SIG, "X509Data")
    certificate = _only(holder, _SIG, "X509Certificate")
    named = thumbprint(_raw(certificate))
    return named, transport == _OAEP, _value(key), _value(root)


def _only(parent: xml.Element, namespace: str, name: str) -> xml.Element:
    found = parent.findall(f"{{{namespace}}}{name}")
    if len(found) != 1:
        raise ValueError
    return found[0]


def _method(parent: xml.Element) -> str:
    return _only(parent, _ENC, "EncryptionMethod").get("Algorithm", "")


def _value(parent: xml.Element) -> bytes:
    # A CipherReference, which would fetch something, is no CipherValue.
    return _raw(_only(_only(parent, _ENC, "CipherData"), _ENC, "CipherValue"))


def _raw(node: xml.Element) -> bytes:
    return binascii.a2b_base64("".join(xml.text_of(node).split()))
