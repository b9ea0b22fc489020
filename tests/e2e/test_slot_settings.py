"""
Two slots of an App Service with the two settings that ASP.NET applications have there.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from demos.swap.slots import SlotError, key_of, python_slots
from tests.doubles.key_vault import USER, KeyVault
from tests.doubles.managed_identity import ManagedIdentity
from tests.servers.azurite import Azurite, new_name
from tests.wrappers.key_vaults import app_service

ENCRYPTED = "{http://schemas.asp.net/2015/03/dataProtection}encryptedSecret"


@pytest.fixture
def identity(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ManagedIdentity]:
    """
    This process, and so each slot, is one of App Service with an identity of the system's.
    """
    with app_service(monkeypatch) as identity:
        yield identity


@pytest.fixture
def vault(
    tmp_path: Path,
    azurite_over_tls: Azurite,
    identity: ManagedIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[KeyVault]:
    """
    A vault in which the identity may use keys, trusted as the storage account is.
    """
    with KeyVault.running(tmp_path) as vault:
        assert identity.system
        vault.rights[identity.system] = set(USER)
        assert azurite_over_tls.ca
        authorities = tmp_path / "authorities.pem"
        authorities.write_text(vault.ca.read_text() + azurite_over_tls.ca.read_text())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authorities))
        yield vault


@contextmanager
def slot(folder: Path, name: str, settings: dict[str, str]) -> Iterator[str]:
    """
    Run the shop, whose code names its application and nothing else, with a slot's settings.
    """
    with python_slots(folder, {name: settings}) as (url,):
        yield url


@pytest.mark.double
@pytest.mark.parametrize("versioned", [False, True], ids=["newest", "version"])
def test_two_settings_and_a_name_share_cookies_between_slots(
    tmp_path: Path, azurite_over_tls: Azurite, vault: KeyVault, versioned: bool
):
    """
    From an empty container the first page makes keys.xml with one key, wrapped by the vault's;
    a second slot with the same settings reads its cookies, and makes nothing.
    """
    version = vault.create("ring")
    container = azurite_over_tls.container()
    assert [] == list(container.list_blobs())
    settings = {
        "DataProtectionBlobContainerUri": container.url,
        "DataProtectionKeyIdentifier": version
        if versioned
        else f"{vault.url}/keys/ring",
    }

    with slot(tmp_path, "blue", settings) as blue, httpx2.Client() as browser:
        assert 200 == browser.get(f"{blue}/login?name=alice").status_code
        form = browser.get(f"{blue}/form").text
        assert ["keys.xml"] == [blob.name for blob in container.list_blobs()]
        before = container.download_blob("keys.xml").readall()
        (key,) = ET.fromstring(before).findall("key")
        assert key_of(blue) == key.get("id")
        (sealed,) = key.iter(ENCRYPTED)
        assert [version] == [each.text for each in sealed.iter("kid")]
        assert not list(key.iter("masterKey"))

        # Every cookie that browsers keep is of the host, so both slots get them.
        with slot(tmp_path, "green", settings) as green:
            said = browser.get(f"{green}/me").json()
            assert {"slot": "green", "name": "alice", "ticket": "alice"} == said
            sent = browser.post(f"{green}/form", data={"csrf_token": form})
            assert 200 == sent.status_code
            assert key_of(blue) == key_of(green)
            assert {"slot": "blue", "name": "alice", "ticket": "alice"} == (
                browser.get(f"{blue}/me").json()
            )
    assert before == container.download_blob("keys.xml").readall()
    wraps = [path for _, path in vault.requests if path.endswith("/wrapkey")]
    assert 1 == len(wraps)


@pytest.mark.double
def test_a_container_that_is_not_there_is_made(
    tmp_path: Path, azurite_over_tls: Azurite, vault: KeyVault
):
    """
    The first page makes the container too, private, where the identity may; without the right to
    the vault's key no slot starts and no blob is made.
    """
    vault.create("ring")
    name = new_name()
    container = azurite_over_tls.service.get_container_client(name)
    settings = {
        "DataProtectionBlobContainerUri": f"{azurite_over_tls.endpoint}/{name}",
        "DataProtectionKeyIdentifier": f"{vault.url}/keys/ring",
    }
    rights = next(iter(vault.rights.values()))
    rights.clear()
    with (
        pytest.raises(SlotError, match="Key Vault Crypto Service Encryption User"),
        slot(tmp_path, "blue", settings),
    ):
        pass
    assert not container.exists()

    rights.update(USER)
    with slot(tmp_path, "blue", settings):
        assert ["keys.xml"] == [blob.name for blob in container.list_blobs()]
        assert container.get_container_properties().public_access is None
