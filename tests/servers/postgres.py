"""
A real PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.servers.installing import require
from tests.servers.processes import ServerProcess, free_port, own_file, own_folder

_BIN = ("/usr/lib/postgresql/*/bin",)
_SUPERUSER = "postgres"


class Postgres:
    """
    A PostgreSQL server of its own; its superuser signs in with the password `password`.
    """

    password = "sekret-postgres-7f3a"

    def __init__(
        self, folder: Path, port: int, key: bytes = b"", certificate: bytes = b""
    ) -> None:
        self.port = port
        self.socket = folder
        account = _SUPERUSER if os.geteuid() == 0 else None
        initdb = require("initdb", apt="postgresql", also_in=_BIN)
        password = folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        data = folder / "data"
        given: dict[str, object] = {}
        if account is not None:
            given = {"user": account, "group": account, "extra_groups": []}
        subprocess.run(
            [
                *(str(initdb), "-D", str(data), "-U", _SUPERUSER, "--no-sync"),
                *("-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8"),
                *("--locale=C",),
            ],
            check=True,
            capture_output=True,
            timeout=60,
            cwd=folder,
            **given,
        )
        tls: list[str | Path] = []
        if key:
            own_file(folder / "key.pem", key, account)
            own_file(folder / "cert.pem", certificate, account)
            tls = ["-c", "ssl=on", "-c", f"ssl_key_file={folder}/key.pem"]
            tls += ["-c", f"ssl_cert_file={folder}/cert.pem"]
        self.process = ServerProcess(
            [
                *(initdb.with_name("postgres"), "-D", data, "-p", str(port)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60"),
                *("-c", f"unix_socket_directories={folder}", "-c", "fsync=off"),
                *("-c", "shared_buffers=16MB", *tls),
            ],
            folder / "log",
            self._answers,
            user=account,
            stop_signal=signal.SIGINT,
        )

    @classmethod
    @contextlib.contextmanager
    def running(cls, key: bytes = b"", certificate: bytes = b"") -> Iterator[Postgres]:
        """
        Start one in a folder of its own; with key and certificate (PEM) it speaks TLS.
        """
        require("initdb", apt="postgresql", also_in=_BIN)
        account = _SUPERUSER if os.geteuid() == 0 else None
        with own_folder("postgres", account) as folder:
            server = cls(folder, free_port(), key, certificate)
            server.process.start()
            try:
                yield server
            finally:
                server.process.stop()

    def connect(
        self, database: str = "postgres", user: str = _SUPERUSER, password: str = ""
    ) -> psycopg.Connection[tuple[object, ...]]:
        """
        Connect, each statement a transaction of its own.
        """
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=user,
            password=password or self.password,
            autocommit=True,
            connect_timeout=5,
        )

    def run(self, *statements: str, database: str = "postgres") -> None:
        """
        Run statements as the superuser.
        """
        with self.connect(database) as connection:
            for statement in statements:
                connection.execute(statement)

    def children(self) -> list[int]:
        """
        Return the process ids of the server's own processes.
        """
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[1]) == self.process.pid:
                    found.append(int(entry.name))
        return found

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True
