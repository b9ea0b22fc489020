"""
The Redis store and .NET's list, races and faults.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import redis as client_package

from kagimori.addresses import Address
from kagimori.errors import (
    ConflictError,
    RingMalformedError,
    StoreError,
)
from kagimori.keys.protection import elements, xml
from kagimori.ring_stores import redis
from kagimori.ring_stores.marks import MOST_ELEMENTS
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named, revocation
from tests.ring_stores.redis_worlds import World
from tests.servers.cutting import Cutting
from tests.servers.processes import free_port
from tests.servers.redis import RedisServer

NEWER = revocation("11111111-1111-4111-8111-111111111111", "newer")


@pytest.fixture
def place(redis_server, tmp_path) -> World:
    return World(redis_server, tmp_path)


# --- the list ------------------------------------------------------------------------------


def test_the_list_of_dotnet_is_the_ring(place):
    """
    What .NET appended is read under the names that follow from it.
    """
    place.push(ONE.xml)
    place.push(TWO.xml)

    assert of(ONE, TWO) == meaning(place.store().load())


def test_dotnet_reads_what_we_write(place):
    """
    Each element is one item of one line without declaration; our state is one more, the last.
    """
    store = place.store()
    after = store.commit([ONE, STATE], (), None)
    store.commit([TWO, NEWER], (), after.version)

    found = [xml.parse(item) for item in place.items()]
    assert ["revocation", "revocation"] == [root.tag for root in found[:2]]
    assert elements.is_state(found[2])
    assert not any("\n" in item or "<?xml" in item for item in place.items())


def test_the_default_list_is_that_of_dotnet(place):
    """
    Without a key the list is DataProtection-Keys; another key is another ring.
    """
    address = f"redis://127.0.0.1:{place.server.port}/3"
    store = redis.open_store(Address.parse(address), read_only=False)
    store.commit([ONE], (), None)
    with place.server.client(db=3) as client:
        assert 2 == client.llen("DataProtection-Keys")
    place.store().commit([TWO], (), None)

    assert of(ONE) == meaning(store.load())
    assert of(TWO) == meaning(place.store().load())
    assert store.name != place.store().name


def test_what_dotnet_appends_in_between_is_a_conflict(place):
    """
    A commit decided before .NET's item is refused, decided after it it holds.
    """
    store = place.store()
    before = store.commit([ONE], (), None)
    token = store.probe()
    place.push(TWO.xml)
    assert token != store.probe()
    with pytest.raises(ConflictError):
        store.commit([named("three")], (), before.version)
    store.commit([named("three")], (), store.load().version)

    assert of(ONE, TWO, named("three")) == meaning(store.load())


def test_items_that_are_no_elements_of_a_ring(place):
    """
    An empty item is none; a broken one makes the ring unreadable, and so does no list at all.
    """
    place.push("")
    place.push(ONE.xml)
    store = place.store()
    assert of(ONE) == meaning(store.load())
    place.push("<broken")
    with pytest.raises(RingMalformedError):
        store.load()
    place.run("LSET", place.key, -1, b"<a>\xff</a>")
    with pytest.raises(RingMalformedError, match="no text"):
        store.load()
    with pytest.raises(RingMalformedError):
        store.commit([TWO], (), None)
    place.run("DEL", place.key)
    place.run("SET", place.key, "text")
    for ask in (store.load, store.probe, lambda: store.commit([ONE], (), None)):
        with pytest.raises(RingMalformedError, match="no list"):
            ask()
    place.run("DEL", place.key)

    assert of(ONE) == meaning(store.commit([ONE], (), None))


def test_a_list_with_too_many_items_is_refused(place):
    """
    A ring has a bounded number of elements.
    """
    place.run("RPUSH", place.key, *[""] * (MOST_ELEMENTS + 1))
    with pytest.raises(StoreError, match="more than"):
        place.store().load()
    place.run("LTRIM", place.key, 0, 9)

    assert () == place.store().load().elements


# --- races and faults ----------------------------------------------------------------------


class Counting:
    """
    A client on which something happens before a chosen command of a transaction.
    """

    def __init__(self, at: int, act: Any) -> None:
        self.at = at
        self.act = act
        self.count = 0

    def over(self, store: redis.RedisStore, patch: pytest.MonkeyPatch) -> None:
        real = client_package.Connection.send_packed_command

        def send(connection: Any, command: Any, **options: Any) -> None:
            pool = store.client.connection_pool
            if connection in pool._connections:
                mine, self.count = self.count, self.count + 1
                if mine == self.at:
                    self.act()
            real(connection, command, **options)

        patch.setattr(client_package.Connection, "send_packed_command", send)


@pytest.mark.parametrize("other", ["dotnet", "ours"])
def test_another_writer_at_any_command_is_not_overwritten(place, other):
    """
    An item of .NET's or a commit of ours between any two commands: nothing of either is lost.
    """
    first = place.store()
    first.commit([ONE, STATE], (), None)
    for at in range(20):
        theirs, mine = named(f"theirs-{at}"), named(f"mine-{at}")

        def write(theirs: Any = theirs) -> None:
            if other == "dotnet":
                place.push(theirs.xml)
            else:
                change(place.store(), (theirs,), ())
                change(place.store(), (named("again"),), ())

        store = place.store()
        watch = Counting(at, write)
        version = first.load().version
        won = True
        with pytest.MonkeyPatch.context() as patch:
            watch.over(store, patch)
            try:
                store.commit([mine], (), version)
            except ConflictError:
                won = False
        store.close()
        names = set(meaning(first.load()))
        if watch.count <= at:
            assert won
            break
        assert theirs.name in names
        assert not won
        assert mine.name not in names
        assert 1 == sum("urn:kagimori" in item for item in place.items())
    else:
        pytest.fail("a commit has fewer commands")


@pytest.mark.parametrize("delivered", [True, False], ids=["done", "not-done"])
def test_a_lost_answer_to_a_commit_is_found_out(place, delivered):
    """
    The connection dies at EXEC, heard by the server or not: it is done once in either case.
    """
    first = place.store()
    before = first.commit([ONE, STATE], (), None)
    relay = Cutting(place.server.port, b"EXEC", delivered=delivered)
    with relay.running():
        store = place.store(port=relay.port)
        after = store.commit([TWO], [ONE.name], before.version)
        store.close()

    assert 1 == relay.cuts
    assert of(TWO) == meaning(after) == meaning(first.load())
    assert after.version == first.load().version


def test_a_server_that_is_down_is_a_passing_fault(place):
    """
    Nobody listens: a transient error that names the server.
    """
    store = place.store(port=free_port())
    for ask in (store.load, store.probe, lambda: store.commit([ONE], (), None)):
        with pytest.raises(StoreError, match="does not answer") as caught:
            ask()
        assert caught.value.transient
        assert caught.value.__cause__ is None


def test_a_restarted_server_is_found_again(tmp_path):
    """
    The server goes down while we hold a connection, and comes back: so do we.
    """
    with RedisServer.running("--appendonly", "yes") as server:
        place = World(server, tmp_path)
        store = place.store()
        after = store.commit([ONE], (), None)
        with server.process.stopped():
            with pytest.raises(StoreError) as caught:
                store.load()
            assert caught.value.transient
        assert of(ONE) == meaning(store.load())
        with server.process.stopped():
            pass
        assert of(ONE, TWO) == meaning(store.commit([TWO], (), after.version))
        assert all(found.ok for found in store.examine())
        store.close()


def test_a_server_that_hangs_is_given_up_on(place, monkeypatch):
    """
    Connections stand and nobody answers: a transient error in bounded time, and no harm after.
    """
    monkeypatch.setattr(redis, "_READ_SECONDS", 0.4)
    store = place.store()
    after = store.commit([ONE], (), None)
    with place.server.process.paused():
        with pytest.raises(StoreError) as caught:
            store.load()
        assert caught.value.transient

    assert of(ONE, TWO) == meaning(store.commit([TWO], (), after.version))


def test_each_process_has_its_own_connection(place):
    """
    A forked child reads and writes on its own connection, and leaves its parent's alone.
    """
    store = place.store()
    store.commit([ONE], (), None)
    child = os.fork()
    if child == 0:
        try:
            change(store, (TWO,), ())
            os._exit(0)
        finally:
            os._exit(4)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert of(ONE, TWO) == meaning(store.load())


def test_many_threads_use_few_connections(place):
    """
    However many threads use a store, it holds at most two connections.
    """
    name = place.user("~*", "+@all")
    store = place.store(user=name)
    store.commit([ONE], (), None)
    threads = [threading.Thread(target=store.load) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    clients = place.run("CLIENT", "LIST")
    assert (
        0
        < str(clients).count(f"user={name}") + str(clients).count(f"'user': '{name}'")
        <= 2
    )
    store.close()
