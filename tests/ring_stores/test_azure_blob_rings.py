"""
Whole rings in a blob: two slots on two addresses, many processes at once, and real .NET.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.core import MatchConditions

from kagimori import open_ring
from kagimori.keys.protection import xml
from kagimori.keys.protection.ring import ProtectionRing
from tests.dotnet import Peer
from tests.doubles.key_vault import USER, KeyVault
from tests.doubles.managed_identity import ManagedIdentity
from tests.ring_stores.azure_places import address, noted
from tests.servers.azurite import Azurite, new_name
from tests.wrappers.key_vaults import app_service

PROCESSES = 8


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagedIdentity]:
    with app_service(monkeypatch) as identity:
        yield identity


@pytest.fixture
def vault(
    azurite_over_tls: Azurite,
    identity: ManagedIdentity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[KeyVault]:
    """
    A vault with a key that the system-assigned identity may use; it and Azurite are trusted.
    """
    with KeyVault.running(tmp_path) as vault:
        both = tmp_path / "authorities.pem"
        ours = azurite_over_tls.ca
        assert ours is not None
        both.write_bytes(ours.read_bytes() + vault.ca.read_bytes())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(both))
        vault.create()
        vault.rights[identity.system or ""] = set(USER)
        yield vault


@pytest.mark.double
def test_from_an_empty_container_two_slots_share_a_ring(
    azurite_over_tls: Azurite, vault: KeyVault, identity: ManagedIdentity
):
    """
    Two addresses and a name: the first slot makes keys.xml with one key wrapped by the vault's,
    the second one, under another identity, reads what the first one wrote.
    """
    client_id, green = identity.assign()
    vault.rights[green] = set(USER)
    container = azurite_over_tls.container()
    location = f"{azurite_over_tls.endpoint}/{container.container_name}"
    wrapper = f"azurekeyvault:{vault.url}/keys/ring"

    blue = open_ring(location, application="shop", wrapper=wrapper)
    payload = blue.protector("cookie").protect(b"hello")
    other = open_ring(
        f"{location}?identity={client_id}",
        application="shop",
        wrapper=f"{wrapper}?identity={client_id}",
    )
    assert b"hello" == other.protector("cookie").unprotect(payload).payload

    root = xml.parse(container.download_blob("keys.xml").readall())
    (key,) = root.findall("key")
    (kid,) = key.iter("kid")
    assert (kid.text or "").startswith(f"{vault.url}/keys/ring/")
    assert not list(key.iter("masterKey"))


@pytest.mark.double
def test_k4_processes_on_an_empty_account_make_one_key(
    azurite_over_tls: Azurite, vault: KeyVault
):
    """
    K4: processes that start together on an account without the container make exactly one
    key, and each opens what every other one protected.
    """
    location = f"{azurite_over_tls.endpoint}/{new_name()}"
    wrapper = f"azurekeyvault:{vault.url}/keys/ring"
    command = [sys.executable, "-m", "tests.ring_stores.ring_worker", location, wrapper]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    try:
        assert {"ready\n"} == {worker.stdout.readline() for worker in workers}
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        keys = [worker.stdout.readline().strip() for worker in workers]
        payloads = [worker.stdout.readline() for worker in workers]
        opened = [worker.communicate("".join(payloads), 120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert 1 == len(set(keys))
    assert {"hello\n" * PROCESSES} == set(opened)
    ring = open_ring(location, application="shop", wrapper=wrapper)
    assert [keys[0]] == [key.id for key in tuple(ring.keys())]


@pytest.mark.dp_peer
def test_dotnet_reads_our_blob_and_we_read_what_it_writes_back(
    dp_peer: Path, azurite: Azurite, tmp_path: Path
):
    """
    The blob's bytes are a ring of .NET's own shape; with a key that .NET adds to them they are
    ours again, our state included.
    """
    noted(tmp_path, azurite)

    def opened() -> ProtectionRing:
        return open_ring(address(tmp_path), application="shop", wrapper="plaintext:")

    peer = Peer(dp_peer, tmp_path, "document")
    path = tmp_path / "ring.xml"
    ring = opened()
    payload = ring.protector(*peer.purposes).protect(b"ours")
    container = ring.location_name.split("/")[-2]
    client = azurite.service.get_blob_client(container, "keys.xml")
    read = client.download_blob()
    path.write_bytes(read.readall())
    assert [b"ours"] == peer.opened([payload])

    peer.run("newkey")
    (theirs,) = peer.protect([b"theirs"])
    client.upload_blob(
        path.read_bytes(),
        overwrite=True,
        etag=read.properties.etag,
        match_condition=MatchConditions.IfNotModified,
    )
    again = opened()
    assert b"theirs" == again.protector(*peer.purposes).unprotect(theirs).payload
    assert 2 == len(tuple(again.keys()))
    # Ours alone raise it: the one who opened it again noted that a key had taken over.
    assert again.generation - ring.generation in {0, 1}
