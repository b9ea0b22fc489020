"""
Rings named as App Service names them, and by clients of Azure.
"""

from __future__ import annotations

import pytest
from azure.keyvault.keys.crypto import CryptographyClient
from azure.storage.blob import BlobClient

from kagimori import open_ring
from kagimori.errors import ConfigError, StoreError
from kagimori.opening import (
    location_from_environment,
    open_store,
    open_wrapper,
    wrapper_from_environment,
)
from tests.doubles.key_vault import USER
from tests.ring_stores import azure_places
from tests.servers.azurite import KEY
from tests.servers.listening_proxy import proxy
from tests.wrappers.key_vaults import trusted_vault

CONTAINER = "https://shop.blob.core.windows.net/rings"
VAULT_KEY = "https://shop.vault.azure.net/keys/ring"
VARIABLES = (
    "KAGIMORI_RING",
    "KAGIMORI_RING_WRAPPER",
    "DataProtectionBlobContainerUri",
    "DataProtectionKeyIdentifier",
)


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_app_service_settings_name_a_ring(monkeypatch):
    """
    The two settings of App Service stand for the container's keys.xml and the vault's key.
    """
    assert (None, None) == (location_from_environment(), wrapper_from_environment())
    monkeypatch.setenv("DataProtectionBlobContainerUri", CONTAINER)
    monkeypatch.setenv("DataProtectionKeyIdentifier", VAULT_KEY)

    assert CONTAINER == location_from_environment()
    assert f"azurekeyvault:{VAULT_KEY}" == wrapper_from_environment()


@pytest.mark.parametrize(
    "ours", ["azblob://shop/rings", "azblob://shop/rings/keys.xml", f"{CONTAINER}/"]
)
def test_both_ways_may_name_the_same(monkeypatch, ours):
    """
    Spellings of one blob do not contradict each other.
    """
    monkeypatch.setenv("KAGIMORI_RING", ours)
    monkeypatch.setenv("DataProtectionBlobContainerUri", CONTAINER)
    monkeypatch.setenv("KAGIMORI_RING_WRAPPER", f"azurekeyvault:{VAULT_KEY}")
    monkeypatch.setenv("DataProtectionKeyIdentifier", VAULT_KEY)

    assert location_from_environment()
    assert wrapper_from_environment()


def test_of_two_ways_to_the_same_ours_has_the_options(monkeypatch):
    """
    An identity or an algorithm that is named with our variable is not lost to App Service's.
    """
    ours = "azblob://shop/rings/keys.xml?identity=11111111-1111-1111-1111-111111111111"
    wrapper = f"azurekeyvault:{VAULT_KEY}?algorithm=RSA-OAEP-256"
    monkeypatch.setenv("KAGIMORI_RING", ours)
    monkeypatch.setenv("DataProtectionBlobContainerUri", CONTAINER)
    monkeypatch.setenv("KAGIMORI_RING_WRAPPER", wrapper)
    monkeypatch.setenv("DataProtectionKeyIdentifier", VAULT_KEY)

    assert (ours, wrapper) == (location_from_environment(), wrapper_from_environment())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAGIMORI_RING", "azblob://shop/rings/other.xml"),
        ("KAGIMORI_RING", "file:///var/lib/ring"),
        ("KAGIMORI_RING_WRAPPER", "azurekeyvault:https://shop.vault.azure.net/keys/b"),
        ("KAGIMORI_RING_WRAPPER", "plaintext:"),
    ],
)
def test_both_ways_with_different_meanings_are_an_error(monkeypatch, name, value):
    """
    Which of two rings would be opened is nobody's guess: the error names both variables.
    """
    monkeypatch.setenv("DataProtectionBlobContainerUri", CONTAINER)
    monkeypatch.setenv("DataProtectionKeyIdentifier", VAULT_KEY)
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as refused:
        open_ring(application="shop")

    assert name in refused.value.text
    assert "DataProtection" in refused.value.text


def test_what_is_given_goes_before_what_is_named(monkeypatch, tmp_path):
    """
    Arguments are taken as they are, whatever the environment says.
    """
    monkeypatch.setenv("DataProtectionBlobContainerUri", CONTAINER)
    monkeypatch.setenv("DataProtectionKeyIdentifier", VAULT_KEY)

    ring = open_ring(f"file://{tmp_path}/r", application="shop", wrapper="plaintext:")

    assert str(tmp_path / "r") == ring.location_name


@pytest.mark.parametrize(
    ("scheme", "heard"), [("http", set()), ("https", {"CONNECT localhost:9"})]
)
def test_an_emulator_over_http_is_not_asked_by_a_proxy(monkeypatch, scheme, heard):
    """
    Attack: the environment's proxy reads signatures and keys that are meant for an emulator on
    this machine. Over https it is used, and sees nothing.
    """
    monkeypatch.setenv("KEY", KEY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    endpoint = f"{scheme}://localhost:9/devstoreaccount1"
    options = f"endpoint={endpoint}&account-key-env=KEY"
    store = open_store(f"azblob://devstoreaccount1/rings/keys.xml?{options}")
    with proxy() as (url, asked):
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, url)
        with pytest.raises(StoreError):
            store.load()

    assert heard == set(asked)


def test_clients_of_azure_stand_for_addresses(tmp_path, monkeypatch, azurite):
    """
    A client of a blob and a client of a vault's key open a ring; so does an address with a
    credential, and both read what the other protected.
    """
    azure_places.noted(tmp_path, azurite)
    store = azure_places.opened(tmp_path)
    with trusted_vault(tmp_path, monkeypatch) as vault:
        vault.create()
        credential = vault.grant(*USER)
        key = open_wrapper(
            f"azurekeyvault:{vault.url}/keys/ring", credential=credential
        ).newest()
        blob = BlobClient.from_blob_url(store.name, credential=KEY)
        client = CryptographyClient(
            key, credential=credential, verify_challenge_resource=False
        )

        ring = open_ring(blob, application="shop", wrapper=client)
        text = ring.protector("p").protect(b"x")
        other = open_ring(
            azure_places.address(tmp_path),
            application="shop",
            wrapper=f"azurekeyvault:{vault.url}/keys/ring",
            credential=credential,
        )

    assert b"x" == other.protector("p").unprotect(text).payload
    assert key in ring.wrapper_name
