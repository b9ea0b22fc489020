"""
``kagimori ring`` on a server's own ring: its data moves along before keys end.
"""

from __future__ import annotations

import pytest


@pytest.fixture
def server(program):
    """
    An installation with a client and a user; clear keys, since a passphrase costs a second.
    """
    installed = program
    issuer = ("--issuer", "https://login.example.com")
    installed.ok("init", *issuer, "--insecure-plaintext-keys")
    installed.ok(
        *("apis", "create", "orders", "--identifier", "https://orders.example"),
        *("--scope", "read"),
    )
    installed.ok(
        *("clients", "create", "shop", "--grant", "refresh_token"),
        *("--scope", "read", "--api", "orders", "--allow-operator-grants"),
    )
    installed.ok(
        "users", "create", "mina", "--password-stdin", typed="four walnuts sing late\n"
    )
    return installed


def sign_in(server) -> str:
    return server.json("tokens", "issue", "--client", "shop", "--user", "mina")[
        "refresh_token"
    ]


def is_alive(server, token: str) -> bool:
    return bool(server.json("tokens", "inspect", typed=token + "\n")["active"])


def protection(server) -> dict[str, str]:
    keys = server.json("ring", "list")["keys"]
    return {key["state"]: key["id"] for key in keys}


def under(server) -> dict[str, tuple[int, int]]:
    left = server.json("ring", "reprotect", "--dry-run")["left"]
    return {each["key"]: (each["keys"], each["sign_ins"]) for each in left}


def signing_kids(server) -> set[str]:
    keys = server.json("keys", "list")
    return {
        key["kid"]
        for key in keys
        if key["use"] == "signing" and key["state"] == "current"
    }


def test_without_a_name_it_is_the_servers_own_ring(server):
    """
    Neither --ring nor a variable: the ring of the installation; it takes no other wrapper.
    """
    told = server.json("ring", "list")

    assert str(server.data / "ring") == told["ring"]
    assert "kagimori" == told["application"]
    server.fails(2, "ring", "list", "--wrapper", "plaintext:")
    server.fails(2, "ring", "init")
    server.ok("ring", "doctor")


def test_reprotect_shows_and_finishes_what_lies_under_an_older_key(server):
    """
    After a rotation keys and sign-ins are counted under the old key, moved, and it may go.
    """
    token = sign_in(server)
    server.ok("ring", "rotate", "--now", "--emergency", "--yes")
    old, new = protection(server)["previous"], protection(server)["current"]
    keys, sign_ins = under(server)[old]
    assert keys >= 3
    assert sign_ins == 1

    server.fails(6, "ring", "delete", old, "--force", "--yes")
    told = server.json("ring", "reprotect")
    server.ok("ring", "delete", old, "--force", "--yes")

    moved = told["moved"]
    assert (keys, 1, 0) == (moved["keys"], moved["sign_ins"], moved["failed"])
    assert {new: (keys, 1)} == under(server)
    assert is_alive(server, token)


def test_reprotect_twice_moves_nothing_more(server):
    """
    Where all lies under the current key there is nothing to do, and the command says so.
    """
    shown = server.ok("ring", "reprotect").stdout

    assert "keys 0, sign-ins 0" in shown


def test_compromise_moves_the_servers_data_first_and_replaces_what_lay_there(server):
    """
    Nobody is signed out by a stolen protection key; signing keys under it are replaced.
    """
    token, before = sign_in(server), signing_kids(server)
    stolen = protection(server)["current"]

    result = server.ok("ring", "compromise", stolen, "--no-wait", "--yes")

    assert "Moved before, of this server" in result.stderr
    assert stolen == protection(server)["revoked"]
    assert is_alive(server, token)
    assert not before & signing_kids(server)
    assert sign_in(server)
    server.ok("doctor")


def test_compromise_of_all_keys_leaves_the_server_readable(server):
    """
    With --all too the server goes on: the key that its data moved to is not among them.
    """
    token = sign_in(server)
    server.ok("ring", "rotate")

    server.ok("ring", "compromise", "--all", "--no-wait", "--yes")

    assert {"revoked", "current"} == set(protection(server))
    assert is_alive(server, token)
    server.ok("doctor")


def test_what_lies_under_a_key_revoked_elsewhere_is_moved_when_asked_for(server):
    """
    A revocation written past the server leaves its data unread; --revoked brings it back.
    """
    sign_in(server)
    stolen = protection(server)["current"]
    named = ("--ring", f"file://{server.data}/ring", "--wrapper", "plaintext:")
    server.ok("ring", "revoke", stolen, "--yes", *named)
    count = under(server)[stolen]

    assert 1 == server("ring", "reprotect").exit_code
    assert count == under(server)[stolen]
    server.ok("ring", "reprotect", "--revoked")

    assert (0, 0) == under(server)[stolen]
    server.ok("doctor")
