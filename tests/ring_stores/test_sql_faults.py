"""
Databases that are down, slow or cut off; forks, threads, and drivers of all kinds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import Any

import psycopg
import pymysql
import pytest

from kagimori.errors import ConfigError, ConflictError, StoreError
from kagimori.keys.protection import elements, xml
from kagimori.ring_stores import sql
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named, revocation
from tests.ring_stores.sql_worlds import World, world
from tests.servers.cutting import Cutting
from tests.servers.processes import free_port

KINDS = ("sqlite", "postgresql", "mariadb")
NEWER = revocation("11111111-1111-4111-8111-111111111111", "newer")
MOST_STATEMENTS = 60
SENT = {"postgresql": b"Q\0\0\0\x0bCOMMIT", "mariadb": b"\x03COMMIT"}


@pytest.fixture(params=KINDS)
def place(request, tmp_path) -> World:
    return world(request.param, tmp_path, request)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request, tmp_path) -> World:
    found = world(request.param, tmp_path, request)
    name = "postgres" if request.param == "postgresql" else "mariadb"
    found.process = request.getfixturevalue(name).process
    found.children = getattr(request.getfixturevalue(name), "children", list)
    return found


@pytest.mark.parametrize("delivered", [True, False], ids=["done", "not-done"])
def test_a_lost_answer_to_a_commit_is_found_out(server, delivered):
    """
    The connection dies at COMMIT, heard by the server or not: it is done once in either case.
    """
    first = server.store()
    before = first.commit([ONE, STATE], (), None)
    relay = Cutting(server.port, SENT[server.kind], delivered=delivered)
    with relay.running():
        store = server.store(port=relay.port)
        after = store.commit([TWO], [ONE.name], before.version)
        store.close()

    assert 1 == relay.cuts
    assert of(TWO) == meaning(after) == meaning(first.load())
    assert after.version == first.load().version


def test_a_lost_answer_to_the_first_commit_is_found_out(server):
    """
    The same where nothing was stored before.
    """
    relay = Cutting(server.port, SENT[server.kind], delivered=True)
    server.migrate()
    with relay.running():
        store = server.store(port=relay.port)
        after = store.commit([ONE], (), None)
        store.close()

    assert 1 == relay.cuts
    assert of(ONE) == meaning(after) == meaning(server.store().load())


def test_a_lost_commit_that_another_writer_overtook_is_a_conflict(server):
    """
    A commit that was not heard, and another one since: nothing of it is written.
    """
    first = server.store()
    before = first.commit([ONE], (), None)
    relay = Cutting(server.port, SENT[server.kind], delivered=False)
    with relay.running():
        store = server.store(port=relay.port)
        connect = store.database._connect

        def overtaken() -> Any:
            if relay.cuts:
                change(first, (TWO,), ())
            return connect()

        store.database._connect = overtaken
        with pytest.raises(ConflictError):
            store.commit([named("three")], (), before.version)
        store.close()

    assert of(ONE, TWO) == meaning(first.load())


def test_a_server_that_is_down_is_a_passing_fault(server):
    """
    Nobody listens: a transient error that names the server, and no secret.
    """
    store = server.store(port=free_port())
    for ask in (store.load, store.probe, lambda: store.commit([ONE], (), None)):
        with pytest.raises(StoreError, match="does not answer") as caught:
            ask()
        assert caught.value.transient
        assert "sekret" not in repr(caught.value) + str(caught.value.detail)
        assert caught.value.__cause__ is None


def test_a_restarted_server_is_found_again(server):
    """
    The server goes down while we hold a connection, and comes back: so do we.
    """
    store = server.store()
    after = store.commit([ONE], (), None)
    with server.process.stopped():
        with pytest.raises(StoreError) as caught:
            store.load()
        assert caught.value.transient
    assert of(ONE) == meaning(store.load())
    with server.process.stopped():
        pass

    assert of(ONE, TWO) == meaning(store.commit([TWO], (), after.version))


def test_a_server_that_hangs_is_given_up_on(server, monkeypatch):
    """
    Connections stand and nobody answers: a transient error in bounded time, and no harm after.
    """
    monkeypatch.setattr(sql, "_READ_SECONDS", 0.4)
    monkeypatch.setattr(sql, "_CONNECT_SECONDS", 1)
    store = server.store()
    after = store.commit([ONE], (), None)
    with server.process.paused(*server.children()):
        with pytest.raises(StoreError) as caught:
            store.load()
        assert caught.value.transient

    monkeypatch.setattr(sql, "_READ_SECONDS", 5)
    assert of(ONE, TWO) == meaning(store.commit([TWO], (), after.version))


def test_a_locked_table_is_given_up_on(place, monkeypatch):
    """
    Somebody holds the table for long: a transient error, and the ring as it was.
    """
    monkeypatch.setattr("kagimori.ring_stores.sql_dialects.STATEMENT_SECONDS", 1)
    monkeypatch.setattr(
        "kagimori.ring_stores.sql_postgresql.PostgreSql._LIMIT",
        "SET LOCAL statement_timeout = '300ms'",
    )
    monkeypatch.setattr(sql, "_READ_SECONDS", 1)
    store = place.store()
    after = store.commit([ONE], (), None)
    lock = {
        "sqlite": "BEGIN IMMEDIATE",
        "postgresql": f'LOCK TABLE "{place.table}"',
        "mariadb": f"LOCK TABLES `{place.table}` WRITE",
    }[place.kind]
    connection = place.connect()
    if place.kind == "postgresql":
        connection.autocommit = False
    connection.cursor().execute(lock)
    with pytest.raises(StoreError) as caught:
        store.commit([TWO], (), after.version)
    assert caught.value.transient
    assert not isinstance(caught.value, ConflictError)
    connection.rollback()
    connection.close()

    assert of(ONE) == meaning(store.load())
    assert of(ONE, TWO) == meaning(store.commit([TWO], (), after.version))


def test_each_process_has_its_own_connection(server):
    """
    A forked child reads and writes on its own connection, and leaves its parent's alone.
    """
    store = server.store()
    store.commit([ONE], (), None)
    mine = store.database._held._connection
    child = os.fork()
    if child == 0:
        try:
            change(store, (TWO,), ())
            store.close()
            os._exit(0 if store.database._held._connection is not mine else 3)
        finally:
            os._exit(4)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert of(ONE, TWO) == meaning(store.load())
    assert mine is store.database._held._connection


def test_a_fork_amid_a_transaction_leaves_the_child_free(server):
    """
    A child that is forked while another thread uses the store does not wait for that thread.
    """
    store = server.store()
    store.commit([ONE], (), None)
    inside, go_on = threading.Event(), threading.Event()

    def work(session: Any, dialect: Any) -> None:
        inside.set()
        go_on.wait(30)

    thread = threading.Thread(
        target=lambda: store.database.transact(work, absent=lambda: None)
    )
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if of(ONE) == meaning(store.load()) else 3)
        finally:
            os._exit(4)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    go_on.set()
    thread.join(30)

    assert of(ONE) == meaning(store.load())


def test_many_threads_share_one_connection(tmp_path, request):
    """
    A store holds one connection to its server, however many threads use it.
    """
    place = world("postgresql", tmp_path, request)
    with place.session() as session:
        session.run(f"CREATE ROLE {place.table} SUPERUSER LOGIN PASSWORD 'sekret'")
    (tmp_path / "password").write_text("sekret")
    store = place.store(user=place.table)
    store.commit([ONE], (), None)
    threads = [threading.Thread(target=store.load) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    with place.session() as session:
        assert [(1,)] == session.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = ?", place.table
        )
    store.close()


def test_factories_of_connections_are_stores(place):
    """
    Whatever makes DB-API connections is a store, for any thread; the driver tells the dialect.
    """
    store = sql.SqlStore(place.connect, table=place.table)
    after = store.commit([ONE, STATE], (), None)
    thread = threading.Thread(
        target=lambda: store.commit([TWO], [ONE.name], after.version)
    )
    thread.start()
    thread.join(30)

    assert of(TWO) == meaning(place.store().load()) == meaning(store.load())
    store.close()


def test_what_is_no_driver_is_refused(tmp_path):
    """
    A connection of no known driver needs a dialect by name, and that of no driver is none.
    """

    class Stranger:
        def close(self) -> None:
            pass

    with pytest.raises(ConfigError, match="paramstyle"):
        sql.SqlStore(Stranger).load()
    with pytest.raises(ConfigError, match="dialect"):
        sql.SqlStore(Stranger, dialect="oracle")
    connect = lambda: sqlite3.connect(tmp_path / "x.db")  # noqa: E731
    assert () == sql.SqlStore(connect, dialect="sqlite").load().elements


def test_state_and_elements_come_through_the_drivers_untouched(place):
    """
    The state that a commit gives comes back without what names the commit.
    """
    place.store().commit([ONE, STATE], (), None)
    state = next(e for e in place.store().load().elements if e.name == elements.STATE)

    assert {"generation"} == set(xml.parse(state.xml).attrib)
    assert psycopg.paramstyle == pymysql.paramstyle == "pyformat"
