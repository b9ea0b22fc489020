"""
Wrappers over the double of Azure Key Vault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagimori.keys.wrapping import WrappedSecret
from kagimori.wrappers.azure_key_vault import AzureKeyVaultWrapper
from tests.doubles.key_vault import USER, Credential, KeyVault
from tests.doubles.managed_identity import ManagedIdentity


@contextmanager
def trusted_vault(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[KeyVault]:
    """
    Run a vault whose certificate is trusted.
    """
    with KeyVault.running(folder) as vault:
        patch.setenv("REQUESTS_CA_BUNDLE", str(vault.ca))
        yield vault


@contextmanager
def app_service(patch: pytest.MonkeyPatch) -> Iterator[ManagedIdentity]:
    """
    Make this process one of App Service with a managed identity, and no other way to sign in.
    """
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        patch.delenv(name, raising=False)
    with ManagedIdentity.running() as identity:
        for name, value in identity.environment.items():
            patch.setenv(name, value)
        yield identity


def wrapper_of(
    vault: KeyVault,
    credential: Credential | None = None,
    *,
    version: str = "",
    name: str = "ring",
    algorithm: str = "RSA-OAEP",
    read_seconds: float = 5.0,
) -> AzureKeyVaultWrapper:
    """
    Return a wrapper over the vault's key, by a principal that may use it.
    """
    return AzureKeyVaultWrapper(
        f"{vault.url}/keys/{name}{version}",
        algorithm=algorithm,
        credential=credential or vault.grant(*USER),
        read_seconds=read_seconds,
    )


def replaced(wrapped: WrappedSecret, old: str, new: str) -> WrappedSecret:
    """
    Return an envelope with one text in it replaced.
    """
    assert old in wrapped.child
    return WrappedSecret(wrapped.decryptor_type, wrapped.child.replace(old, new, 1))
