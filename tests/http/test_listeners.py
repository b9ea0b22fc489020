"""
The sockets that a server listens on.
"""

from __future__ import annotations

import socket

import pytest

from kagimori.errors import ConfigError
from kagimori.http.listeners import address_of, bind_admin, bind_public, close_all
from kagimori.settings import ServerSettings, Settings


def settings(listen=None, admin=None, issuer="http://localhost:3000", demo=False):
    return Settings(
        issuer=issuer,
        demo=demo,
        server=ServerSettings(listen=listen, admin_listen=admin),
    )


@pytest.fixture
def taken():
    """
    A port on which somebody listens already.
    """
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def bound(binding, *arguments, **more):
    sockets = binding(settings(*arguments, **more))
    found = [address_of(each) for each in sockets]
    close_all(sockets)
    return found


def test_localhost_means_both_loopback_addresses():
    """
    The same port on 127.0.0.1 and, where there is one, on ::1.
    """
    found = bound(bind_public, "localhost:0")

    ports = {each.rpartition(":")[2] for each in found}
    assert found[0].startswith("127.0.0.1:")
    assert 1 == len(ports)
    assert all(each.startswith(("127.0.0.1:", "[::1]:")) for each in found)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_the_demo_listens_on_all_of_loopback_however_it_is_asked(host):
    """
    Its lines say localhost, and that may be either address.
    """
    found = bound(bind_public, f"{host}:0", demo=True)

    assert found[0].startswith("127.0.0.1:")


def test_one_address_is_one_socket():
    """
    A real installation listens where it is told to, and nowhere else.
    """
    assert 1 == len(bound(bind_public, "127.0.0.1:0"))
    assert bound(bind_public, ":0")[0].startswith("0.0.0.0:")


@pytest.mark.parametrize(
    ("issuer", "port"),
    [("http://localhost:18712", "18712"), ("https://login.example:18712", "3000")],
)
def test_left_out_the_listener_is_loopback_at_the_issuers_port(
    monkeypatch, issuer, port
):
    """
    An issuer on this machine names the port; behind a proxy it is 3000.
    """
    asked = []

    def bind(host, port):
        asked.append((host, port))
        raise ConfigError("enough")

    monkeypatch.setattr("kagimori.http.listeners._bind", bind)
    with pytest.raises(ConfigError):
        bind_public(settings(issuer=issuer))

    assert [("127.0.0.1", int(port))] == asked


def test_a_taken_port_is_told_with_the_way_out(taken):
    """
    The text names the address, the hint another port by --listen and by make.
    """
    with pytest.raises(ConfigError, match=f"127.0.0.1:{taken} is taken") as caught:
        bind_public(settings(f"localhost:{taken}"))

    assert f"--listen 127.0.0.1:{taken + 1}" in caught.value.hint
    assert f"PORT={taken + 1}" in caught.value.hint


def test_half_of_localhost_taken_is_taken():
    """
    Somebody else on ::1 would answer half of the requests to localhost.
    """
    with socket.socket(socket.AF_INET6) as other:
        try:
            other.bind(("::1", 0))
        except OSError:
            # No IPv6 here: then there is only one half.
            assert 1 == len(bound(bind_public, "localhost:0"))
            return
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(ConfigError, match="is taken"):
            bind_public(settings(f"localhost:{port}"))


@pytest.mark.parametrize("listen", ["no.such.host.invalid:1", "198.51.100.1:1"])
def test_an_address_of_another_machine_is_told(listen):
    """
    A clear sentence and what to write instead.
    """
    with pytest.raises(ConfigError) as caught:
        bind_public(settings(listen))

    assert "--listen" in caught.value.hint


def test_the_admin_listener_moves_to_a_free_port_unless_it_was_named(
    monkeypatch, taken
):
    """
    Left out and taken: a free port. Named and taken: told.
    """
    monkeypatch.setattr("kagimori.http.listeners.ADMIN", ("127.0.0.1", taken))

    moved = bound(bind_admin)

    assert f"127.0.0.1:{taken}" != moved[0]
    with pytest.raises(ConfigError, match="is taken"):
        bind_admin(settings(admin=f"127.0.0.1:{taken}"))
