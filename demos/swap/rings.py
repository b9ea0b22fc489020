"""
The rings of the demonstration: each a folder, all wrapped by one certificate.

By a certificate, because that is what .NET on Linux opens too; a passphrase is of ours alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from demos.swap.shop import APPLICATION


@dataclass(frozen=True)
class Certificate:
    """
    A certificate with its private key, in a file under a password in another.
    """

    path: Path
    password_path: Path

    @classmethod
    def made_in(cls, folder: Path) -> Certificate:
        """
        Make one that signs itself; nobody asks a ring's certificate for more.
        """
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ring")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        password = secrets.token_urlsafe()
        sealed = pkcs12.serialize_key_and_certificates(
            b"ring", key, made, None, BestAvailableEncryption(password.encode())
        )
        certificate = cls(folder / "ring.pfx", folder / "ring.password")
        certificate.password_path.write_text(password)
        certificate.path.write_bytes(sealed)
        for path in (certificate.path, certificate.password_path):
            path.chmod(0o600)
        return certificate


@dataclass(frozen=True)
class Ring:
    """
    A ring that slots are pointed at.
    """

    folder: Path
    certificate: Certificate

    @property
    def variables(self) -> Mapping[str, str]:
        """
        The settings of a slot: they name the ring, and that is all that slots share.
        """
        path = quote(str(self.certificate.path))
        password = quote(str(self.certificate.password_path))
        return {
            "KAGIMORI_RING": self.folder.as_uri(),
            "KAGIMORI_RING_WRAPPER": f"certificate:{path}?password-file={password}",
        }

    @property
    def dotnet_options(self) -> tuple[str, ...]:
        """
        The same, as options of `dp-peer`. It is to make no keys: one side is enough.
        """
        password = self.certificate.password_path.read_text()
        return (
            *("--dir", str(self.folder), "--app", APPLICATION, "--no-generate"),
            *("--pfx", str(self.certificate.path), "--password", password),
        )
