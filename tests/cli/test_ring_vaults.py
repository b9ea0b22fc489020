"""
``kagimori ring`` on a ring whose keys a vault wraps: versions, rewrapping, missing rights.
"""

from __future__ import annotations

import pytest

from tests.doubles.vault_transit import Vault, serving
from tests.servers.azurite import ACCOUNT, KEY, new_name

TOKEN = "hvs.test-token"


@pytest.fixture
def vault():
    """
    A vault with one key of one version.
    """
    with serving(Vault()) as server:
        server.create("ring")
        yield server


@pytest.fixture
def wrapped(bare, vault):
    """
    A program whose ring is wrapped by the vault.
    """
    bare.environ |= {
        "KAGIMORI_RING_WRAPPER": f"vault:{vault.url}/{vault.mount}/ring",
        "VAULT_TOKEN": TOKEN,
    }
    bare.ok("init")
    return bare


def versions(ring):
    return [
        (key["wrapping_key"][-1], key["is_newest"]) for key in ring.json("list")["keys"]
    ]


@pytest.mark.double
def test_list_says_which_version_guards_which_key_and_rewrap_moves_them(wrapped, vault):
    """
    After the vault's key turned, older entries are shown, warned of, and wrapped anew.
    """
    vault.keys["ring"].rotate()
    wrapped.ok("rotate")

    assert [("1", False), ("2", True)] == versions(wrapped)
    assert "not the newest" in wrapped.ok("list").stdout
    assert "! wrapper, keys: Keys wrapped by an older version" in (
        wrapped.ok("doctor").stdout
    )

    told = wrapped.json("rewrap")["rewrapped"]

    assert (1, 1) == (len(told["changed"]), len(told["unchanged"]))
    assert [("2", True), ("2", True)] == versions(wrapped)


@pytest.mark.double
def test_doctor_names_the_right_that_the_vault_does_not_give(wrapped, vault):
    """
    Unwrapping without wrapping: one finding is bad, with the provider's remedy.
    """
    vault.policy["encrypt/ring"] = set()

    result = wrapped("doctor")

    assert 1 == result.exit_code
    assert "✗ wrapper, wrap:" in result.stdout
    assert "✓ wrapper, unwrap:" in result.stdout
    assert "→" in result.stdout


def test_doctor_warns_of_a_container_that_strangers_can_read(bare, azurite):
    """
    A ring in a blob is made, examined right by right, and a public container is warned of.
    """
    name = new_name()
    bare.environ |= {
        "KAGIMORI_RING": f"azblob://{ACCOUNT}/{name}"
        f"?endpoint={azurite.endpoint}&account-key-env=STORAGE_KEY",
        "STORAGE_KEY": KEY,
    }
    bare.ok("init")

    private = bare.json("doctor")
    container = azurite.service.get_container_client(name)
    container.set_container_access_policy({}, public_access="container")
    public = bare.json("doctor")

    verdicts = [
        {each["right"]: each["verdict"] for each in told["findings"]}
        for told in (private, public)
    ]
    assert ["good", "warning"] == [each["anonymous read"] for each in verdicts]
    assert {"good"} == {each["write if unchanged"] for each in verdicts}
