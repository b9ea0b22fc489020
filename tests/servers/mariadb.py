"""
A real MariaDB.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pymysql

from tests.servers.installing import require
from tests.servers.processes import ServerProcess, free_port, own_file, own_folder


class MariaDb:
    """
    A MariaDB server of its own; its root signs in with the password `password`.
    """

    password = "sekret-mariadb-91bc"

    def __init__(
        self, folder: Path, port: int, key: bytes = b"", certificate: bytes = b""
    ) -> None:
        self.port = port
        self.socket = folder / "s"
        account = "mysql" if os.geteuid() == 0 else None
        data = folder / "data"
        install = require("mariadb-install-db", apt="mariadb-server")
        as_account = [] if account is None else [f"--user={account}"]
        subprocess.run(
            [
                *(str(install), "--no-defaults", f"--datadir={data}", *as_account),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
                "--innodb-log-file-size=8M",
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        program = require("mariadbd", apt="mariadb-server")
        self._password = ""
        tls = []
        if key:
            own_file(folder / "key.pem", key, account)
            own_file(folder / "cert.pem", certificate, account)
            tls = [f"--ssl-key={folder}/key.pem", f"--ssl-cert={folder}/cert.pem"]
        self.process = ServerProcess(
            [
                *(program, "--no-defaults", f"--datadir={data}", *as_account),
                *(f"--port={port}", "--bind-address=127.0.0.1"),
                *(f"--socket={folder}/s", f"--pid-file={folder}/pid"),
                *("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"),
                *("--innodb-flush-log-at-trx-commit=0", "--performance-schema=off"),
                *("--skip-name-resolve", *tls),
            ],
            folder / "log",
            self._answers,
        )

    @classmethod
    @contextlib.contextmanager
    def running(cls, key: bytes = b"", certificate: bytes = b"") -> Iterator[MariaDb]:
        """
        Start one in a folder of its own; with key and certificate (PEM) it speaks TLS.
        """
        require("mariadbd", apt="mariadb-server")
        account = "mysql" if os.geteuid() == 0 else None
        with own_folder("mariadb", account) as folder:
            server = cls(folder, free_port(), key, certificate)
            server.process.start()
            try:
                server.run(
                    "ALTER USER root@localhost IDENTIFIED BY " + f"'{cls.password}'",
                    f"CREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY '{cls.password}'",
                    "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION",
                    "CREATE DATABASE rings CHARACTER SET utf8mb4",
                )
                server._password = cls.password
                yield server
            finally:
                server.process.stop()

    def connect(
        self,
        database: str | None = None,
        user: str = "root",
        password: str | None = None,
    ) -> pymysql.Connection:
        """
        Connect, each statement a transaction of its own.
        """
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=self._password if password is None else password,
            database=database,
            autocommit=True,
            connect_timeout=5,
            charset="utf8mb4",
        )

    def run(self, *statements: str, database: str | None = None) -> None:
        """
        Run statements as root.
        """
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except (pymysql.Error, OSError):
            return False
        return True
