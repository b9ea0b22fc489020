"""
The addresses of SQL stores, their secrets and their TLS.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from typing import Any

import pytest
import redis
import trustme

from kagimori.addresses import Address
from kagimori.errors import ConfigError, StoreError
from kagimori.ring_stores import sql
from kagimori.ring_stores.factories import store_of
from kagimori.ring_stores.sql_connection import Fault
from kagimori.ring_stores.sql_server import SqlServer
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres


def opened(address: str) -> Any:
    return sql.open_store(Address.parse(address), read_only=False)


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:relative.db",
        "sqlite://host/path.db",
        "sqlite:///path.db?tables=x",
        "sqlite:///path.db?table=a&table=b",
        "postgresql:///database",
        "postgresql://host",
        "postgresql://host/a/b",
        "postgresql://host/a?tls=perhaps",
        "postgresql://host/a?tls=off&ca=/x.pem",
        "mysql://host/a?ca=x.pem",
        "mysql://:one@host/a?password=two",
        "mariadb://host/a?password=one&password-env=TWO",
    ],
)
def test_a_malformed_address_is_refused(address):
    """
    What names no database, no table or a secret twice is a fault of the configuration.
    """
    with pytest.raises(ConfigError) as caught:
        opened(address)
    assert "two" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("sqlite:///a%20b/r.db", "sqlite:///a b/r.db (table DataProtectionKeys)"),
        (
            "postgresql://me:secret@host:5/db?table=app.Keys",
            "postgresql://host:5/db (table app.Keys)",
        ),
        (
            "mysql://me@host/db?password=secret&tls=off",
            "mysql://host/db (table DataProtectionKeys)",
        ),
    ],
)
def test_a_name_says_where_and_no_secret(address, name):
    """
    A store is named by its place and table, without user, password or options.
    """
    store = opened(address)

    assert name == store.name
    assert "secret" not in repr(store) + repr(vars(store.database))


def test_no_driver_is_imported_before_it_is_used():
    """
    Importing the stores loads neither psycopg nor pymysql nor redis.
    """
    code = (
        "import sys, kagimori.ring_stores.sql, kagimori.ring_stores.redis;"
        "print(sorted({'psycopg', 'pymysql', 'redis'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "[]\n" == said.stdout


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_driver_that_is_missing_is_named(scheme, monkeypatch):
    """
    Without its package an address is a fault of the configuration that says what to install.
    """
    package, extra = {
        "postgresql": ("psycopg", "postgres"),
        "mysql": ("pymysql", "mysql"),
    }[scheme]
    assert opened(f"{scheme}://host/db").name
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"kagimori\[{extra}\]"):
        opened(f"{scheme}://host/db")


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_an_authority_vouches_for_the_server(kind, tmp_path):
    """
    With ca= the server's certificate and name are checked; a server without TLS is refused.
    """
    authority, stranger = trustme.CA(), trustme.CA()
    for name, ca in (("ca", authority), ("stranger", stranger)):
        ca.cert_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    issued = authority.issue_cert("127.0.0.1")
    key = issued.private_key_pem.bytes()
    certificate = issued.cert_chain_pems[0].bytes()
    server: Any = Postgres if kind == "postgresql" else MariaDb
    user, database = (
        ("postgres", "postgres") if kind == "postgresql" else ("root", "rings")
    )
    with server.running(key, certificate) as running:
        (tmp_path / "password").write_text(running.password)

        def store(option: str, host: str = "127.0.0.1") -> Any:
            return opened(
                f"{kind}://{user}@{host}:{running.port}/{database}"
                f"?password-file={tmp_path}/password&{option}"
            )

        ca = f"ca={tmp_path}/ca.pem"
        assert of(ONE) == meaning(store(ca).commit([ONE], (), None))
        for wrong in (
            store(f"ca={tmp_path}/stranger.pem"),
            store(ca, "localhost"),
            store("tls=system"),
        ):
            with pytest.raises(StoreError) as caught:
                wrong.load()
            assert not caught.value.transient
        for weaker in ("tls=prefer", "tls=off"):
            assert of(ONE) == meaning(store(weaker).load())


def test_a_server_without_tls_is_refused_where_it_was_asked_for(
    postgres, mariadb, tmp_path
):
    """
    A connection that was to be encrypted never falls back to one in the clear.
    """
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for server, place in (
        (postgres, "postgresql://postgres@127.0.0.1:{}/postgres"),
        (mariadb, "mariadb://root@127.0.0.1:{}/rings"),
    ):
        (tmp_path / "password").write_text(server.password)
        address = place.format(server.port) + f"?password-file={tmp_path}/password"
        assert opened(f"{address}&tls=prefer").probe() is None
        with pytest.raises(StoreError) as caught:
            opened(f"{address}&ca={tmp_path}/ca.pem").load()
        assert not caught.value.transient


def test_a_socket_is_a_host(postgres, mariadb, tmp_path):
    """
    A host that is a path (percent-encoded) is a socket of this machine.
    """
    for server, kind, user, place in (
        (postgres, "postgresql", "postgres", "postgres"),
        (mariadb, "mariadb", "root", "rings"),
    ):
        (tmp_path / "password").write_text(server.password)
        host = str(server.socket).replace("/", "%2F")
        store = opened(
            f"{kind}://{user}@{host}:{server.port}/{place}?table={tmp_path.name}"
            f"&password-file={tmp_path}/password"
        )
        assert of(ONE) == meaning(store.commit([ONE], (), None))
        store.close()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_an_authority_that_is_not_there_is_refused(scheme, tmp_path):
    """
    A ca that names no file, or no certificate, is told at once where it can be.
    """
    with pytest.raises(ConfigError, match="no certificate authority"):
        opened(f"{scheme}://host/db?ca={tmp_path}/none.pem")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert opened(f"{scheme}://host/db?ca={tmp_path}/ca.pem").name


# --- SQL Server, which is not run here -----------------------------------------------------


class Foreign:
    """
    A driver whose SQL is SQL Server's, over a SQLite database that understands most of it.
    """

    __module__ = "sqlite3"

    def __init__(self, path: Any, said: list[str]) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.create_function("datalength", 1, len)
        self._said = said
        self.autocommit = True

    def cursor(self) -> Any:
        return ForeignCursor(self._connection, self._said)

    def commit(self) -> None:
        self._said.append("COMMIT")
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()


class ForeignCursor:
    def __init__(self, connection: Any, said: list[str]) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._said = said

    def execute(self, statement: str, parameters: Any = ()) -> None:
        self._said.append(statement)
        if statement.startswith("SET "):
            return
        statement = statement.replace(" WITH (UPDLOCK, HOLDLOCK)", "")
        statement = statement.replace("NOT NULL IDENTITY", "NOT NULL")
        statement = statement.replace("nvarchar(max)", "text")
        if not self._connection.in_transaction:
            self._cursor.execute("BEGIN")
        try:
            self._cursor.execute(statement, parameters)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise sqlite3.OperationalError(
                    "42S02", "Invalid object (208)"
                ) from None
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def test_sql_servers_statements_are_those_of_its_documentation(tmp_path):
    """
    Explicit ids are announced and taken back, reads are serializable, rows locked for a commit.
    """
    said: list[str] = []
    store = sql.SqlStore(
        lambda: Foreign(tmp_path / "x.db", said), dialect="sqlserver", table="dbo_Keys"
    )
    after = store.commit([ONE, STATE], (), None)
    store.commit([TWO], [ONE.name], after.version)
    assert of(TWO) == meaning(store.load())
    assert store.probe() is not None

    on, off = (
        said.index(f"SET IDENTITY_INSERT [dbo_Keys] {word}") for word in ("ON", "OFF")
    )
    inserts = [n for n, one in enumerate(said) if one.startswith("INSERT INTO")]
    assert on < inserts[0] < inserts[1] < off < said.index("COMMIT", off)
    assert "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE" in said
    assert any("WITH (UPDLOCK, HOLDLOCK) ORDER BY" in one for one in said)
    assert any("int NOT NULL IDENTITY" in one for one in said)
    store.close()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            ("23000", "[23000] Violation of PRIMARY KEY (2627) (SQLExecDirectW)"),
            "CONFLICT",
        ),
        (("40001", "[40001] deadlock victim (1205) (SQLExecDirectW)"), "CONFLICT"),
        (("42S02", "[42S02] Invalid object name (208)"), "NO_TABLE"),
        (("42000", "[42000] permission was denied (229)"), "FORBIDDEN"),
        (("42000", "[42000] CREATE TABLE permission denied (262)"), "FORBIDDEN"),
        (("28000", "[28000] Login failed (18456)"), "NOT_SIGNED_IN"),
        (("08S01", "[08S01] Communication link failure (0)"), "LOST"),
        (("HYT00", "[HYT00] Lock request time out (1222)"), "SLOW"),
        ((2627, b"Violation of PRIMARY KEY"), "CONFLICT"),
        ((229, b"The SELECT permission was denied"), "FORBIDDEN"),
        (("22001", "[22001] truncated (2628)"), "OTHER"),
    ],
)
def test_sql_servers_errors_are_told_apart(arguments, fault):
    """
    The errors of pyodbc and pymssql, as they are documented.
    """
    assert Fault[fault] is SqlServer().fault(Exception(*arguments))


def test_a_factory_is_a_store(tmp_path, postgres, redis_server):
    """
    A factory of connections or clients is a store at .NET's own place; anything else is none.
    """
    for factory, kind in (
        (lambda: sqlite3.connect(tmp_path / "x.db"), "sqlite3"),
        (postgres.connect, "psycopg"),
        (lambda: redis.Redis(port=redis_server.port, db=7), "DataProtection-Keys"),
    ):
        store = store_of(factory)
        assert kind in store.name
        before = store.load()
        store.commit([ONE], (), before.version)
        assert of(ONE) == meaning(store_of(factory, read_only=True).load())
    with pytest.raises(ConfigError, match="neither"):
        store_of(dict)
