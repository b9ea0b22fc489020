"""
Wrapping by a key of Azure Key Vault, against the double of the service.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagimori.errors import KeyWrapError
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers.key_vault_key import VaultKeyId
from tests.doubles.key_vault import USER, KeyVault
from tests.wrappers.key_vaults import replaced, trusted_vault, wrapper_of

pytestmark = pytest.mark.double


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyVault]:
    with KeyVault.running(tmp_path_factory.mktemp("vault")) as vault:
        vault.create()
        yield vault


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyVault]:
    with KeyVault.running(tmp_path_factory.mktemp("elsewhere"), 90) as vault:
        vault.create()
        yield vault


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyVault]:
    with trusted_vault(tmp_path, monkeypatch) as vault:
        yield vault


class TestAzureKeyVaultWrapper(KeyWrapperConformance):
    # The format of .NET carries neither a tag nor the key's id.
    binds_context = False
    is_authenticated = False

    @pytest.fixture(autouse=True)
    def _vaults(
        self,
        shared: KeyVault,
        elsewhere: KeyVault,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        both = tmp_path / "authorities.pem"
        both.write_bytes(shared.ca.read_bytes() + elsewhere.ca.read_bytes())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(both))
        self.vaults = shared, elsewhere

    def make_wrapper(self, place):
        return wrapper_of(self.vaults[0])

    def make_other(self, place):
        return wrapper_of(self.vaults[1])


# --- what an envelope looks like -------------------------------------------------------


def test_the_envelope_is_laid_out_as_dotnet_has_it(vault: KeyVault):
    """
    Comment, versioned id, wrapped key, IV and value, in .NET's order; the type names no version.
    """
    key_id = vault.create()
    wrapped = wrapper_of(vault).wrap(SECRET, CONTEXT)
    root = xml.parse(wrapped.child)
    comment, *parts = root

    assert " This key is encrypted with Azure Key Vault. " == comment.text
    assert "encryptedKey" == root.tag
    assert ["kid", "key", "iv", "value"] == [part.tag for part in parts]
    assert key_id == parts[0].text
    assert not parts[1].attrib
    assert wrapped.decryptor_type == (
        "Azure.Extensions.AspNetCore.DataProtection.Keys.AzureKeyVaultXmlDecryptor, "
        "Azure.Extensions.AspNetCore.DataProtection.Keys"
    )


def test_the_vault_does_the_wrapping_and_unwrapping(vault: KeyVault):
    """
    Wrapping asks for the key and has it wrap; unwrapping is one call, to the id in the envelope.
    """
    path = vault.create().removeprefix(vault.url)
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    assert [("GET", "/keys/ring"), ("POST", f"{path}/wrapkey")] == vault.requests
    vault.requests.clear()
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    assert [("POST", f"{path}/unwrapkey")] == vault.requests


def test_rsa_oaep_256_is_for_rings_without_dotnet(vault: KeyVault):
    """
    The option is said in the envelope, and any wrapper of the vault opens it, and others still.
    """
    vault.create()
    newer = wrapper_of(vault, algorithm="RSA-OAEP-256")
    wrapped = newer.wrap(SECRET, CONTEXT)
    old = wrapper_of(vault).wrap(SECRET, CONTEXT)

    assert "RSA-OAEP-256" in wrapped.child
    assert "RSA-OAEP" not in old.child
    for wrapper in (newer, wrapper_of(vault)):
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
        assert meaning(SECRET) == meaning(wrapper.unwrap(old, CONTEXT))
    with pytest.raises(KeyWrapError):
        newer.unwrap(replaced(wrapped, "RSA-OAEP-256", "RSA1_5"), CONTEXT)


# --- which key -------------------------------------------------------------------------


def test_after_a_rotation_old_entries_open_and_new_ones_name_the_new_version(
    vault: KeyVault,
):
    """
    Unwrapping goes to the version in the envelope, wrapping to the newest; both are told.
    """
    first = vault.create()
    wrapper = wrapper_of(vault)
    old = wrapper.wrap(SECRET, CONTEXT)
    assert first == wrapper.newest()
    second = vault.create()
    new = wrapper.wrap(SECRET, CONTEXT)

    assert (first, second) == (wrapper.key_of(old), wrapper.key_of(new))
    assert second == wrapper.newest()
    for wrapped in (old, new):
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_version_in_the_address_wraps_after_a_rotation_too(vault: KeyVault):
    """
    Who names a version means it.
    """
    first = vault.create()
    vault.create()
    wrapper = wrapper_of(vault, version="/" + first.rpartition("/")[2])

    assert first == wrapper.newest() == wrapper.key_of(wrapper.wrap(SECRET, CONTEXT))


def test_key_of_is_none_for_what_is_no_envelope_of_a_vault(vault: KeyVault):
    """
    Envelopes of others and broken ones name no key of a vault.
    """
    vault.create()
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    assert wrapper.key_of(wrapped) is not None
    assert wrapper.key_of(WrappedSecret("X", wrapped.child)) is None
    assert wrapper.key_of(replaced(wrapped, "https:", "file:")) is None
    assert wrapper.key_of(replaced(wrapped, "<kid>", "<kin>x</kin><kid>")) is not None


def test_another_key_of_the_same_vault_opens_by_its_own_id(vault: KeyVault):
    """
    What is configured does not matter for reading, as with .NET.
    """
    vault.create("ring")
    vault.create("other")
    wrapped = wrapper_of(vault, name="other").wrap(SECRET, CONTEXT)

    assert meaning(SECRET) == meaning(wrapper_of(vault).unwrap(wrapped, CONTEXT))


@pytest.mark.parametrize(
    "kid",
    [
        "https://evil.example/keys/ring/{version}",
        "https://{host}.evil.example/keys/ring/{version}",
        "https://{host}@evil.example/keys/ring/{version}",
        "https://evil.example\\@{host}/keys/ring/{version}",
        "https://evil.example#@{host}/keys/ring/{version}",
        "https://localhost/keys/ring/{version}",
        "http://{host}/keys/ring/{version}",
        "https://{host}/keys/ring",
        "https://{host}/keys/ring/{version}?x=1",
        "https://{host}/secrets/ring/{version}",
        "https://{host}/keys/../keys/ring/{version}",
        "https://evil.vault.azure.net/keys/ring/{version}",
        "KeyId",
    ],
)
def test_k1_a_written_ring_cannot_send_our_token_elsewhere(vault: KeyVault, kid: str):
    """
    K1: an envelope that names a key of another place is refused before anybody is asked.
    """
    key_id = vault.create()
    credential = vault.grant(*USER)
    wrapper = wrapper_of(vault, credential)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    host = vault.url.removeprefix("https://")
    named = kid.format(host=host, version=key_id.rpartition("/")[2])
    vault.requests.clear()

    with pytest.raises(KeyWrapError) as caught:
        wrapper.unwrap(replaced(wrapped, key_id, named), CONTEXT)
    assert not caught.value.transient
    assert [] == vault.requests
    assert {("https://vault.azure.net/.default",)} == set(credential.asked)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


@pytest.mark.parametrize(
    ("one", "other", "is_neighbour"),
    [
        ("a.vault.azure.net", "b.vault.azure.net", True),
        ("a.vault.azure.net", "B.vault.azure.NET:443", True),
        ("a.vault.usgovcloudapi.net", "b.vault.usgovcloudapi.net", True),
        ("a.managedhsm.azure.net", "b.managedhsm.azure.net", True),
        ("a.vault.azure.net", "b.vault.azure.cn", False),
        ("a.vault.azure.net", "b.managedhsm.azure.net", False),
        ("a.vault.azure.net", "b.vault.azure.net.evil.example", False),
        ("a.vault.azure.net", "evilvault.azure.net", False),
        ("a.vault.azure.net", "x.b.vault.azure.net", False),
        ("a.vault.azure.net", "b.vault.azure.net:8443", False),
        ("a.vault.azure.net", "vault.azure.net", False),
        ("vault.example", "other.example", False),
    ],
)
def test_vaults_of_one_cloud_are_told_by_azures_own_domains(
    one: str, other: str, is_neighbour: bool
):
    """
    Only what lies directly below one domain of Azure's is answered by Azure alone.
    """
    keys = [VaultKeyId.parse(f"https://{host}/keys/ring") for host in (one, other)]

    assert is_neighbour is keys[0].is_neighbour_of(keys[1])
    assert is_neighbour is keys[1].is_neighbour_of(keys[0])


# --- processes -----------------------------------------------------------------------------


def test_a_forked_process_has_connections_of_its_own(vault: KeyVault):
    """
    After a fork both processes go on, each over its own connection, side by side.
    """
    vault.create()
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    ours = id(wrapper._client._senders.get())

    def opens() -> bool:
        opened = [wrapper.unwrap(wrapped, CONTEXT) for _ in range(5)]
        return {meaning(SECRET)} == {meaning(text) for text in opened}

    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads, of which the double has some.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            is_good = opens() and id(wrapper._client._senders.get()) != ours
            os._exit(0 if is_good else 1)
        except BaseException:  # noqa: BLE001 - the child must end here
            os._exit(2)
    assert opens()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
