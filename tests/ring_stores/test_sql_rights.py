"""
What roles may do, by the database's own grants, and what is said where a right is missing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from kagimori.errors import ConfigError, KagimoriError, RingReadOnlyError, StoreError
from kagimori.ring_stores.sql import SqliteStore
from kagimori.testing.conformance.key_store import ONE, TWO, meaning, of
from tests.ring_stores.sql_worlds import World, world

PASSWORD = "sekret-of-a-role-55d1"
NOBODY = 65534


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request, tmp_path) -> World:
    found = world(request.param, tmp_path, request)
    (tmp_path / "password").write_text(PASSWORD)
    return found


def role(server: World, name: str, *rights: str) -> str:
    """
    Make a role, with rights on the ring's table alone; return its name.
    """
    name = f"{name}_{server.table[-8:]}"
    who = name
    with server.session() as session:
        if server.kind == "postgresql":
            session.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        else:
            who = f"{name}@'127.0.0.1'"
            session.run(f"CREATE USER {who} IDENTIFIED BY '{PASSWORD}'")
        if rights:
            table = server.quoted(server.table)
            session.run(f"GRANT {', '.join(rights)} ON {table} TO {who}")
    return name


def refused(error: KagimoriError, server: World, name: str) -> None:
    """
    The text names table and role, and nothing that is secret.
    """
    assert server.table in str(error)
    assert name in str(error)
    assert "GRANT" in error.hint
    assert PASSWORD not in repr(error) + str(error) + error.detail


def test_a_role_that_may_read_reads_and_no_more(server):
    """
    SELECT suffices for a read-only ring; writing by that role is refused and changes nothing.
    """
    server.migrate()
    server.insert(ONE.name, ONE.xml)
    name = role(server, "reader", "SELECT")
    reader = server.store(user=name, read_only=True)
    assert of(ONE) == meaning(reader.load())
    assert reader.probe() is not None
    with pytest.raises(RingReadOnlyError):
        reader.commit([TWO], (), reader.load().version)

    writer = server.store(user=name)
    with pytest.raises(StoreError) as caught:
        writer.commit([TWO], (), writer.load().version)
    refused(caught.value, server, name)
    assert not caught.value.transient
    assert 1 == len(server.rows())


def test_a_role_with_the_rights_on_the_table_alone_writes(server):
    """
    SELECT, INSERT and DELETE on the table suffice to write, and EF Core writes on after it.
    """
    server.migrate()
    name = role(server, "writer", "SELECT", "INSERT", "DELETE")
    store = server.store(user=name)
    after = store.commit([ONE], (), None)
    server.insert(TWO.name, TWO.xml)
    store.commit([], [ONE.name], store.load().version)

    assert of(TWO) == meaning(store.load())
    assert after.version != store.load().version


@pytest.mark.parametrize("rights", [(), ("INSERT",), ("INSERT", "DELETE")])
def test_what_may_not_be_read_is_not_absent(server, rights):
    """
    A role that may not read the table is told so: it never looks like an empty ring.
    """
    server.migrate()
    server.insert(ONE.name, ONE.xml)
    name = role(server, "blind", *rights)
    store = server.store(user=name)
    for ask in (store.load, store.probe, lambda: store.commit([TWO], (), None)):
        with pytest.raises(StoreError) as caught:
            ask()
        refused(caught.value, server, name)


@pytest.mark.parametrize("missing", ["INSERT", "DELETE"])
def test_a_right_that_is_missing_halfway_leaves_the_ring_as_it_was(server, missing):
    """
    Without the right to insert or to delete nothing of a commit is kept.
    """
    server.migrate()
    name = role(server, "half", *({"SELECT", "INSERT", "DELETE"} - {missing}))
    (server.place / "password").write_text(server.password)
    owner = server.store()
    owner.commit([ONE], (), None)
    (server.place / "password").write_text(PASSWORD)
    store = server.store(user=name)
    with pytest.raises(StoreError) as caught:
        store.commit([TWO], [ONE.name], store.load().version)

    refused(caught.value, server, name)
    assert of(ONE) == meaning(owner.load())


def test_a_table_that_may_not_be_made_is_named(server):
    """
    A role without the right to create: reading finds nothing, writing says what is missing.
    """
    name = role(server, "small")
    if server.kind == "mariadb":
        # Without any right on the database the sign-in itself is refused.
        with pytest.raises(StoreError) as caught:
            server.store(user=name).load()
        assert not caught.value.transient
        server.migrate()
        with server.session() as session:
            session.run(f"GRANT SELECT ON rings.* TO {name}@'127.0.0.1'")
            session.run(f"DROP TABLE {server.quoted(server.table)}")
    store = server.store(user=name)
    assert () == store.load().elements
    with pytest.raises(StoreError) as caught:
        store.commit([ONE], (), None)
    refused(caught.value, server, name)
    with server.session() as session:
        if server.kind == "postgresql":
            session.run(f"GRANT CREATE ON SCHEMA public TO {name}")
        else:
            session.run(
                f"GRANT CREATE, INSERT, DELETE ON rings.* TO {name}@'127.0.0.1'"
            )

    assert of(ONE) == meaning(store.commit([ONE], (), None))


def test_a_schema_that_may_not_be_used_is_not_absent(tmp_path, request):
    """
    PostgreSQL does not see tables of a schema without USAGE: no new table is made beside it.
    """
    server = world("postgresql", tmp_path, request)
    with server.session() as session:
        session.run("CREATE SCHEMA IF NOT EXISTS hidden")
    name = role(server, "outside")
    hidden = f"hidden.{server.table}"
    server.store(table=hidden).commit([ONE], (), None)
    with server.session() as session:
        session.run(f"CREATE SCHEMA AUTHORIZATION {name}")
        session.run(f'ALTER ROLE {name} SET search_path = hidden, "$user"')
        session.run(f"GRANT SELECT, INSERT, DELETE ON {hidden} TO {name}")
    (tmp_path / "password").write_text(PASSWORD)
    store = server.store(user=name)
    with pytest.raises(StoreError, match="GRANT USAGE ON SCHEMA hidden"):
        store.commit([TWO], (), None)
    with server.session() as session:
        session.run(f"GRANT USAGE ON SCHEMA hidden TO {name}")

    assert of(ONE) == meaning(server.store(user=name).load())


def test_a_wrong_password_is_no_passing_fault(server):
    """
    A refused sign-in is permanent and quotes nothing; so is a database that is not there.
    """
    (server.place / "password").write_text("sekret-and-wrong")
    with pytest.raises(StoreError, match="refuses the sign-in") as caught:
        server.store().load()
    assert not caught.value.transient
    assert "sekret" not in repr(caught.value) + str(caught.value) + caught.value.detail

    (server.place / "password").write_text(server.password)
    server.database = "nowhere"
    with pytest.raises(StoreError, match="no such database") as caught:
        server.store().load()
    assert not caught.value.transient


def test_a_schema_that_is_not_there_is_named(tmp_path, request):
    """
    A table in a schema that nobody made is not made either.
    """
    server = world("postgresql", tmp_path, request)
    with pytest.raises(StoreError, match="no schema"):
        server.store(table="nowhere.ring").commit([ONE], (), None)


@pytest.mark.parametrize(
    "table", ["", "a b", 'a"b', "a.b.c", "a`b", "x" * 64, "1a", "a;b", "a?b", "ä"]
)
def test_a_table_of_another_name_is_refused(tmp_path, request, table):
    """
    Names that would have to be quoted, or that a database would cut, are refused.
    """
    place = world("sqlite", tmp_path, request)
    with pytest.raises(ConfigError):
        place.store(table=table or "%20")
    assert () == place.store(table="x" * 63).load().elements


def test_the_examination_tries_each_right(server):
    """
    Each right is told apart, with the grant that mends it, and nothing is left behind.
    """
    name = role(server, "examined")
    server.migrate()
    expected = {
        (): [("read", False)],
        ("SELECT",): [
            ("read", True),
            ("write if unchanged", False),
            ("delete", False),
        ],
        ("SELECT", "DELETE"): [
            ("read", True),
            ("write if unchanged", False),
            ("delete", True),
        ],
        ("SELECT", "INSERT", "DELETE"): [
            ("read", True),
            ("write if unchanged", True),
            ("delete", True),
        ],
    }
    who = name if server.kind == "postgresql" else f"{name}@'127.0.0.1'"
    table = server.quoted(server.table)
    for rights, findings in expected.items():
        if rights:
            with server.session() as session:
                session.run(f"GRANT {', '.join(rights)} ON {table} TO {who}")
        store = server.store(user=name)
        found = store.examine()
        assert findings == [(finding.right, finding.ok) for finding in found]
        for finding in found:
            assert finding.ok or "GRANT" in finding.remedy
    assert [] == server.rows()
    assert ["read"] == [
        finding.right for finding in server.store(user=name, read_only=True).examine()
    ]


def test_the_examination_of_a_place_without_a_table_makes_none(tmp_path, request):
    """
    Where the table is still to be made, making it is tried and undone.
    """
    for kind in ("sqlite", "postgresql", "mariadb"):
        place = world(kind, tmp_path, request)
        store = place.store()
        found = store.examine()
        # Where the tests run in a container, a file may go with it.
        assert [("read", True), ("create the table", True)] == [
            (finding.right, finding.ok)
            for finding in found
            if finding.right != "lasting"
        ]
        assert place.store().load().version is None
        assert place.store().probe() is None


def test_a_sqlite_file_of_another_account_is_told_of():
    """
    A file that may not be written is read; one that may not be read is not absent.
    """
    with tempfile.TemporaryDirectory(prefix="kagimori-sqlite-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "ring.db")
        SqliteStore(path).commit([ONE], (), None)

        def says(mode: int) -> str:
            path.chmod(mode)
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                if os.geteuid() == 0:
                    os.setuid(NOBODY)
                said = []
                for verb in ("load", "commit"):
                    store = SqliteStore(path)
                    try:
                        if verb == "load":
                            said.append(str(len(store.load().elements)))
                        else:
                            store.commit([TWO], (), store.load().version)
                            said.append("written")
                    except StoreError as error:
                        said.append(f"{error.text} {error.hint}")
                os.write(writing, "|".join(said).encode())
                os._exit(0)
            os.close(writing)
            os.waitpid(child, 0)
            with os.fdopen(reading) as answer:
                return answer.read()

        if os.geteuid() == 0:
            loaded, committed = says(0o644).split("|")
            assert "1" == loaded
            assert "right to write the file" in committed or "replica" in committed
        loaded, committed = says(0o000).split("|")
        assert str(path) in loaded
        assert "right" in loaded
        path.chmod(0o600)
        assert of(ONE) == meaning(SqliteStore(path).load())
