"""
Azurite: Azure Storage's own emulator, with blobs alone.

It is installed with npm into ``build/azurite`` where it is not there yet.
"""

from __future__ import annotations

import fcntl
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    generate_blob_sas,
    generate_container_sas,
)

from tests.servers.installing import missing, require
from tests.servers.processes import ServerProcess, free_port, is_open, own_folder

VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"
# Public and the same everywhere: it stands in Azurite's own documentation.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_FOLDER = Path(__file__).parents[2] / "build" / "azurite"
_INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Azurite:
    """
    A running Azurite.

    Attributes:
        endpoint: of the one account, such as ``http://127.0.0.1:10000/devstoreaccount1``.
        ca: the file of the authority that its certificate is of; ``None`` over http.
    """

    endpoint: str
    ca: Path | None
    process: ServerProcess

    @classmethod
    @contextmanager
    def running(cls, *, tls: bool = False) -> Iterator[Azurite]:
        """
        Run one; over TLS it takes bearer tokens too.
        """
        program = installed()
        with own_folder("azurite") as folder:
            port = free_port()
            options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
            ca = None
            if tls:
                ca = make_certificate(folder)
                options += ["--oauth", "basic", "--cert", str(folder / "cert.pem")]
                options += ["--key", str(folder / "key.pem")]
            process = ServerProcess(
                [
                    *(program, "--blobHost", "127.0.0.1", "--blobPort", str(port)),
                    *("--location", folder / "data", *options),
                ],
                folder / "log",
                lambda: is_open(port),
            )
            process.start()
            scheme = "https" if tls else "http"
            try:
                yield cls(f"{scheme}://127.0.0.1:{port}/{ACCOUNT}", ca, process)
            finally:
                process.stop()

    @property
    def service(self) -> BlobServiceClient:
        """
        A client that may do everything.
        """
        return BlobServiceClient(
            self.endpoint,
            credential=AzureNamedKeyCredential(ACCOUNT, KEY),
            connection_verify=str(self.ca) if self.ca else True,
        )

    def container(self, *, public: str | None = None) -> ContainerClient:
        """
        Make a container of a name of its own.
        """
        return self.service.create_container(new_name(), public_access=public)

    def blob_sas(self, container: str, permission: str, blob: str = "keys.xml") -> str:
        """
        Return a signature for one blob with permissions such as ``rw``.
        """
        return generate_blob_sas(
            ACCOUNT,
            container,
            blob,
            account_key=KEY,
            permission=BlobSasPermissions.from_string(permission),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def container_sas(self, container: str, permission: str) -> str:
        """
        Return a signature for a container.
        """
        return generate_container_sas(
            ACCOUNT,
            container,
            account_key=KEY,
            permission=ContainerSasPermissions.from_string(permission),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )


def new_name() -> str:
    """
    Return the name of a container that is not there.
    """
    return f"ring-{uuid.uuid4().hex[:16]}"


def make_certificate(folder: Path, *names: str) -> Path:
    """
    Write ``cert.pem`` and ``key.pem`` of this machine to a folder, and return its authority's.
    """
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost", *names)
    (folder / "cert.pem").write_bytes(b"".join(b.bytes() for b in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"


def installed() -> Path:
    """
    Return Azurite's program, installed first where it is not there.
    """
    program = _FOLDER / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return program
    npm = require("npm", apt="npm")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            words = ["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]
            done = subprocess.run(
                [npm, *words, _FOLDER, f"azurite@{VERSION}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
            if done.returncode:
                how = f"npm install azurite@{VERSION} failed: {done.stderr[-500:]}"
                missing("azurite", "azurite", how)
    return program
