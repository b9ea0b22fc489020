"""
Certificates for tests, made once a session.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

PASSWORD = b"p&ss w+rd"


@functools.cache
def certificate(name: str, bits: int):
    """
    Return a private key and a certificate for it; `bits` 0 makes an elliptic one.
    """
    key = (
        rsa.generate_private_key(65537, bits)
        if bits
        else ec.generate_private_key(ec.SECP256R1())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        # Long over: dates of validity do not matter to a ring.
        .not_valid_after(start + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    return key, made


def pfx(name: str, password: bytes | None = PASSWORD, bits: int = 2048) -> bytes:
    key, made = certificate(name, bits)
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return pkcs12.serialize_key_and_certificates(b"ring", key, made, None, encryption)


def pem_certificate(name: str) -> bytes:
    return certificate(name, 2048)[1].public_bytes(serialization.Encoding.PEM)


def pem_key(name: str, password: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return certificate(name, 2048)[0].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
