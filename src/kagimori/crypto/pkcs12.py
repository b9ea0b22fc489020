"""
Certificates with their RSA keys, from PKCS#12 and PEM files.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from kagimori.errors import KeyWrapError

_LEAST_BITS = 2048
_PEM_KEY = re.compile(
    rb"-----BEGIN ((?:RSA |ENCRYPTED )?PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Identity:
    """
    A certificate and, where it was given, its private key. No readable key in the ``repr``.

    Attributes:
        der: the certificate.
        thumbprint: SHA-1 of it in hex, by which .NET names certificates; no security in it.
    """

    der: bytes = field(repr=False)
    thumbprint: str
    subject: str
    public_key: rsa.RSAPublicKey = field(repr=False)
    private_key: rsa.RSAPrivateKey | None = field(repr=False)


def load_identity(data: bytes, password: bytes | None) -> Identity:
    """
    Read a certificate with its RSA key from PKCS#12, or from PEM holding both.

    Args:
        password: of the file, or of the private key in it; ``None`` if there is none.

    Raises:
        KeyWrapError: wrong password, no certificate, no RSA key of 2048 bits, or a private key
            that belongs to another certificate.
    """
    try:
        if b"-----BEGIN" in data:
            certificate, key = _from_pem(data, password)
        else:
            key_found, certificate, _ = pkcs12.load_key_and_certificates(data, password)
            key = key_found
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # From None: a parser's message may quote what it parsed.
        raise KeyWrapError(
            "The certificate's file cannot be read.",
            hint="Check the password, and that it is PKCS#12 (.pfx, .p12) or PEM.",
        ) from None
    if certificate is None:
        raise KeyWrapError("The certificate's file holds no certificate.")
    public = certificate.public_key()
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < _LEAST_BITS:
        raise KeyWrapError(
            f"A ring is wrapped by an RSA certificate of at least {_LEAST_BITS} bits."
        )
    if key is not None and not isinstance(key, rsa.RSAPrivateKey):
        raise KeyWrapError("The private key is not an RSA key.")
    if key is not None and key.public_key() != public:
        raise KeyWrapError("The private key belongs to another certificate.")
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Identity(
        der, thumbprint(der), certificate.subject.rfc4514_string(), public, key
    )


def thumbprint(der: bytes) -> str:
    """
    Return the thumbprint by which .NET names a certificate: upper-case hex of SHA-1.
    """
    return hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()


def _from_pem(
    data: bytes, password: bytes | None
) -> tuple[x509.Certificate | None, object]:
    found = _PEM_KEY.search(data)
    key = None
    if found is not None:
        block = found[0]
        is_encrypted = b"ENCRYPTED" in block
        key = serialization.load_pem_private_key(
            block, password if is_encrypted else None
        )
    if b"-----BEGIN CERTIFICATE-----" not in data:
        return None, key
    return x509.load_pem_x509_certificate(data), key
