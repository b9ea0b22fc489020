"""
Rights on a Redis server, its settings, its TLS, and the addresses that name it.
"""

from __future__ import annotations

from typing import Any

import pytest
import redis as client_package
import trustme

from kagimori.addresses import Address
from kagimori.errors import (
    ConfigError,
    RingReadOnlyError,
    StoreError,
)
from kagimori.ring_stores import redis
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import revocation
from tests.ring_stores.redis_worlds import PASSWORD, World
from tests.servers.processes import free_port
from tests.servers.redis import RedisServer

NEWER = revocation("11111111-1111-4111-8111-111111111111", "newer")


@pytest.fixture
def place(redis_server, tmp_path) -> World:
    return World(redis_server, tmp_path)


# --- rights --------------------------------------------------------------------------------


def test_an_acl_user_with_the_commands_that_are_named_suffices(place):
    """
    What the errors' hint grants is enough: for reading, and for writing.
    """
    name = place.user(f"~{place.key}", "+llen", "+lindex", "+lrange", "+multi", "+exec")
    store = place.store(user=name)
    assert () == store.load().elements
    with pytest.raises(StoreError) as caught:
        store.commit([ONE], (), None)
    assert not caught.value.transient
    assert name in caught.value.text
    assert place.key in caught.value.text
    assert PASSWORD not in repr(caught.value) + caught.value.detail
    hint = caught.value.hint.split()
    assert ["ACL", "SETUSER", name] == hint[:3]
    place.run(*hint)

    assert of(ONE) == meaning(store.commit([ONE], (), None))
    assert store.probe() is not None
    reader = place.store(user=name, read_only=True)
    assert of(ONE) == meaning(reader.load())
    with pytest.raises(RingReadOnlyError):
        reader.commit([TWO], (), reader.load().version)


def test_a_key_that_may_not_be_read_is_not_absent(place):
    """
    A user without a right on the key is told so: it never looks like an empty ring.
    """
    place.push(ONE.xml)
    name = place.user("~other", "+@all")
    store = place.store(user=name)
    for ask in (store.load, store.probe, lambda: store.commit([TWO], (), None)):
        with pytest.raises(StoreError, match="lacks a right") as caught:
            ask()
        assert place.key in caught.value.text
    assert [False, False] == [found.ok for found in store.examine()]


def test_a_wrong_password_is_no_passing_fault(place):
    """
    A refused sign-in is permanent and quotes nothing.
    """
    name = place.user("~*", "+@all", "resetpass", ">another")
    with pytest.raises(StoreError, match="refuses the sign-in") as caught:
        place.store(user=name).load()

    assert not caught.value.transient
    assert PASSWORD not in repr(caught.value) + str(caught.value) + caught.value.detail


def test_the_examination_tries_each_right(place):
    """
    Reading and writing are told apart, and nothing is left behind.
    """
    reading = ("+llen", "+lindex", "+lrange", "+multi", "+exec")
    name = place.user(f"~{place.key}", *reading)
    found = {one.right: one for one in place.store(user=name).examine()}
    assert found["read"].ok
    assert not found["write if unchanged"].ok
    assert "+rpush" in found["write if unchanged"].remedy
    found = {one.right: one for one in place.store().examine()}
    assert found["read"].ok
    assert found["write if unchanged"].ok

    assert 0 == place.run("EXISTS", place.key)


# --- the server's settings -----------------------------------------------------------------


def test_a_server_that_might_lose_the_ring_is_warned_of(tmp_path):
    """
    Persistence that is off, eviction of any key, and an expiry are named with the remedy.
    """
    with RedisServer.running() as server:
        place = World(server, tmp_path)
        store = place.store()
        store.commit([ONE], (), None)

        def bad() -> dict[str, str]:
            return {one.right: one.remedy for one in store.examine() if not one.ok}

        assert {"lasting"} == set(bad())
        assert "keeps nothing on its disk" in store.lost_at_restart()
        place.run("CONFIG", "SET", "save", "60 1")
        assert {} == bad()
        assert not store.lost_at_restart()
        place.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert {} == bad()
        place.run("CONFIG", "SET", "maxmemory", "100mb")
        assert "noeviction" in bad()["eviction"]
        place.run("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        assert {} == bad()
        place.run("EXPIRE", place.key, 1000)
        assert f"PERSIST {place.key}" == bad()["expiry"]
        # A server that refuses CONFIG and INFO tells nothing, which is no fault.
        name = place.user(f"~{place.key}", "+@all", "-config", "-info", "-ttl")
        assert all(one.ok for one in place.store(user=name).examine())
        assert not place.store(user=name).lost_at_restart()
        store.close()


def test_a_server_that_takes_no_writes_says_why(tmp_path):
    """
    A full memory and a replica are told apart from missing rights, and pass.
    """
    with RedisServer.running() as server:
        place = World(server, tmp_path)
        store = place.store()
        after = store.commit([ONE], (), None)
        place.run("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(StoreError, match="memory is full") as caught:
            store.commit([TWO], (), after.version)
        assert caught.value.transient
        place.run("CONFIG", "SET", "maxmemory", "0")
        place.run("REPLICAOF", "127.0.0.1", str(free_port()))
        with pytest.raises(StoreError, match="replica") as caught:
            store.commit([TWO], (), after.version)
        assert caught.value.transient
        assert of(ONE) == meaning(store.load())
        place.run("REPLICAOF", "NO", "ONE")
        assert of(ONE, TWO) == meaning(store.commit([TWO], (), after.version))
        store.close()


# --- addresses -----------------------------------------------------------------------------


def test_rediss_checks_the_servers_certificate(tmp_path):
    """
    Over TLS the authority has to vouch for the server's name; another one's is refused.
    """
    authority, stranger = trustme.CA(), trustme.CA()
    for name, ca in (("ca", authority), ("stranger", stranger)):
        ca.cert_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    right = authority.issue_cert("127.0.0.1")
    right.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    right.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    port = free_port()
    with RedisServer.running(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(tmp_path / "cert.pem")),
        *("--tls-key-file", str(tmp_path / "key.pem")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem")),
    ):

        def store(ca: str, host: str = "127.0.0.1") -> Any:
            address = f"rediss://{host}:{port}/0?ca={tmp_path}/{ca}.pem"
            return redis.open_store(Address.parse(address), read_only=False)

        assert of(ONE) == meaning(store("ca").commit([ONE], (), None))
        for wrong in (store("stranger"), store("ca", "localhost")):
            with pytest.raises(StoreError, match="certificate") as caught:
                wrong.load()
            assert not caught.value.transient
        assert of(ONE) == meaning(store("ca").load())


@pytest.mark.parametrize(
    "address",
    [
        "redis:///0",
        "redis://127.0.0.1/zero",
        "redis://127.0.0.1/0?keys=x",
        "redis://127.0.0.1/0?key=a&key=b",
        "redis://127.0.0.1/0?key=",
        "redis://127.0.0.1/0?ca=/x.pem",
        "rediss://127.0.0.1/0?ca=x.pem",
        "redis://:one@127.0.0.1/0?password=two",
    ],
)
def test_a_malformed_address_is_refused(address):
    """
    What names no server, no list or a secret twice is a fault of the configuration.
    """
    with pytest.raises(ConfigError):
        redis.open_store(Address.parse(address), read_only=False)


def test_a_client_made_elsewhere_is_a_store(place):
    """
    A factory of clients is a store, whether they decode or not.
    """
    for decode in (False, True):
        store = redis.RedisStore(
            lambda decode=decode: client_package.Redis(
                port=place.server.port, decode_responses=decode
            ),
            key=f"{place.key}-{decode}",
        )
        store.commit([ONE, STATE], (), None)
        assert of(ONE) == meaning(store.load())
        assert store.examine()[0].ok
        store.close()
