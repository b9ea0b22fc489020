"""
Signing in to Azure Key Vault, its addresses, and the doctor's questions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagimori.addresses import Address
from kagimori.errors import ConfigError, KeyWrapError
from kagimori.events import NullSink
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    SECRET,
    meaning,
)
from kagimori.wrappers.azure_key_vault import AzureKeyVaultWrapper, open_wrapper
from tests.doubles.key_vault import USER, KeyVault
from tests.doubles.managed_identity import ManagedIdentity
from tests.wrappers.key_vaults import app_service, trusted_vault, wrapper_of

pytestmark = pytest.mark.double


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyVault]:
    with trusted_vault(tmp_path, monkeypatch) as vault:
        yield vault


# --- signing in ------------------------------------------------------------------------


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagedIdentity]:
    with app_service(monkeypatch) as identity:
        yield identity


def of_address(vault: KeyVault, options: str = "") -> AzureKeyVaultWrapper:
    address = Address.parse(f"azurekeyvault:{vault.url}/keys/ring{options}")
    return open_wrapper(address, NullSink())


def test_the_system_assigned_identity_signs_in(
    vault: KeyVault, identity: ManagedIdentity
):
    """
    Without anything said, the application's own identity is used, for the vault's resource.
    """
    vault.create()
    vault.rights[identity.system or ""] = set(USER)
    wrapper = of_address(vault)

    wrapped = wrapper.wrap(SECRET, CONTEXT)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    assert [("https://vault.azure.net", None)] == identity.asked


def test_a_user_assigned_identity_signs_in(
    vault: KeyVault, identity: ManagedIdentity, monkeypatch: pytest.MonkeyPatch
):
    """
    One is named by its client id, in the address or in AZURE_CLIENT_ID.
    """
    vault.create()
    client_id, principal = identity.assign()
    vault.rights[principal] = set(USER)

    of_address(vault, f"?identity={client_id}").wrap(SECRET, CONTEXT)
    with pytest.raises(KeyWrapError, match="The right get"):
        of_address(vault).wrap(SECRET, CONTEXT)
    monkeypatch.setenv("AZURE_CLIENT_ID", client_id)
    of_address(vault).wrap(SECRET, CONTEXT)
    resource = "https://vault.azure.net"
    assert {(resource, client_id), (resource, None)} == set(identity.asked)


def test_signing_in_that_fails_says_what_to_do(
    vault: KeyVault, identity: ManagedIdentity, monkeypatch: pytest.MonkeyPatch
):
    """
    Where the platform's endpoint fails, it may pass; where there is nothing to sign in by, it
    does not.
    """
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
    vault.create()
    vault.rights[identity.system or ""] = set(USER)
    wrapper = of_address(vault)
    identity.failing = True
    with pytest.raises(KeyWrapError, match="Signing in to Azure") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient
    assert "managed identity" in caught.value.hint
    identity.failing = False
    wrapper.wrap(SECRET, CONTEXT)

    class Nobody:
        def get_token(self, *scopes: str, **_: object) -> object:
            from azure.core.exceptions import ClientAuthenticationError

            raise ClientAuthenticationError("no way with secret-of-mine")

    monkeypatch.delenv("IDENTITY_ENDPOINT")
    with pytest.raises(KeyWrapError, match="Signing in to Azure") as caught:
        wrapper_of(vault, Nobody()).wrap(SECRET, CONTEXT)
    assert not caught.value.transient
    assert "secret-of-mine" not in f"{caught.value!s}{caught.value.detail}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("status", "is_transient"), [(401, False), (503, True)])
def test_what_entra_answers_is_no_answer_of_the_vault(
    vault: KeyVault, tmp_path: Path, status: int, is_transient: bool
):
    """
    A credential that Entra refuses is told of as such, and passes where Entra's trouble does.
    """
    from azure.core.exceptions import ClientAuthenticationError

    class Answer:
        status_code, reason, headers = status, "Refused", {"Date": "today"}

        def text(self) -> str:
            return ""

    class Refused:
        def get_token(self, *scopes: str, **_: object) -> object:
            raise ClientAuthenticationError("AADSTS7000215", response=Answer())

    vault.create()
    with pytest.raises(KeyWrapError, match="Signing in to Azure") as caught:
        wrapper_of(vault, Refused()).wrap(SECRET, CONTEXT)
    assert caught.value.transient is is_transient
    assert [] == vault.requests
    wrapper_of(vault).wrap(SECRET, CONTEXT)


def test_a_client_of_the_sdk_may_be_given(vault: KeyVault):
    """
    A CryptographyClient wraps and opens keys of its vault, versions before its own too.
    """
    from azure.keyvault.keys.crypto import CryptographyClient

    first = vault.create()
    old = wrapper_of(vault).wrap(SECRET, CONTEXT)
    second = vault.create()
    client = CryptographyClient(
        second, vault.grant(*USER), verify_challenge_resource=False
    )
    wrapper = AzureKeyVaultWrapper.from_cryptography_client(client)
    new = wrapper.wrap(SECRET, CONTEXT)

    assert (first, second) == (wrapper.key_of(old), wrapper.key_of(new))
    for wrapped in (old, new):
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    # Not even a client with retries of its own sleeps.
    vault.throttle(1, Retry_After="600")
    with pytest.raises(KeyWrapError, match="too often") as caught:
        wrapper.unwrap(new, CONTEXT)
    assert 600 == caught.value.retry_after


# --- the doctor's questions ------------------------------------------------------------


def test_examine_tries_each_right_by_itself(vault: KeyVault):
    """
    With all rights all is well; without one, that one is told of and the others are found.
    """
    vault.create()
    names = {"get": "read key", "wrapKey": "wrap", "unwrapKey": "unwrap"}
    assert all(finding.ok for finding in wrapper_of(vault).examine())

    for right, name in names.items():
        wrapper = wrapper_of(vault, vault.grant(*(USER - {right})))
        findings = {finding.right: finding for finding in wrapper.examine()}
        assert set(names.values()) == set(findings)
        assert [name] == [f.right for f in findings.values() if not f.ok]
        assert f"The right {right} " in findings[name].text
        assert "Key Vault Crypto Service Encryption User" in findings[name].remedy


def test_examine_tells_of_a_key_that_cannot_serve(vault: KeyVault):
    """
    An EC key fails every question, and the first answer says why.
    """
    vault.create(kty="EC", operations=("sign", "verify"))
    read, wrap, unwrap = wrapper_of(vault).examine()

    assert not read.ok
    assert "type EC" in read.text
    assert not wrap.ok
    assert not unwrap.ok


# --- addresses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "azurekeyvault:http://v.vault.azure.net/keys/ring",
        "azurekeyvault:https://v.vault.azure.net/secrets/ring",
        "azurekeyvault:https://v.vault.azure.net/keys/ring/1/2",
        "azurekeyvault:https://u:p@v.vault.azure.net/keys/ring",
        "azurekeyvault:https://v.vault.azure.net/keys/ring?algorithm=RSA1_5",
        "azurekeyvault:https://v.vault.azure.net/keys/ring?colour=red",
        "azurekeyvault:v/keys/ring",
        "azurekeyvault:",
    ],
)
def test_addresses_that_are_none_are_refused(address: str):
    """
    Each is a ConfigError before anything is asked; the right one beside them opens.
    """
    with pytest.raises(ConfigError):
        open_wrapper(Address.parse(address), NullSink())
    good = (
        "azurekeyvault:https://v.vault.azure.net/keys/ring/0123?algorithm=RSA-OAEP-256"
    )
    named = open_wrapper(Address.parse(good), NullSink()).name
    assert "https://v.vault.azure.net/keys/ring/0123" in named


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """
    A missing package is a ConfigError with the command.
    """
    monkeypatch.setitem(sys.modules, "azure.keyvault.keys", None)

    with pytest.raises(ConfigError) as caught:
        AzureKeyVaultWrapper("https://v.vault.azure.net/keys/ring")
    assert "pip install 'kagimori[azure]'" in caught.value.hint
    monkeypatch.undo()
    AzureKeyVaultWrapper("https://v.vault.azure.net/keys/ring")
