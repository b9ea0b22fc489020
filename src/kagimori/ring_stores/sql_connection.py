"""
What the SQL store calls of a DB-API 2.0 driver (PEP 249), and the faults it tells apart.
"""

from __future__ import annotations

import contextlib
import enum
import re
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from kagimori.errors import ConfigError


class Cursor(Protocol):
    """
    A DB-API cursor.
    """

    @property
    def description(self) -> Sequence[Sequence[object]] | None: ...  # noqa: D102

    @property
    def rowcount(self) -> int: ...  # noqa: D102

    @property
    def execute(self) -> Callable[..., object]: ...  # noqa: D102

    def fetchmany(self, size: int, /) -> Sequence[Sequence[object]]: ...  # noqa: D102

    def close(self) -> object: ...  # noqa: D102


class Connection(Protocol):
    """
    A DB-API connection. The store uses it for explicit transactions only.
    """

    def cursor(self) -> Cursor: ...  # noqa: D102

    def commit(self) -> object: ...  # noqa: D102

    def rollback(self) -> object: ...  # noqa: D102

    def close(self) -> object: ...  # noqa: D102


class Fault(enum.Enum):
    """
    What a driver's exception means for a ring.
    """

    NO_TABLE = "no table"
    NO_DATABASE = "no database"
    NOT_SIGNED_IN = "not signed in"
    FORBIDDEN = "forbidden"
    READ_ONLY = "read-only server"
    CONFLICT = "conflict"
    EXISTS = "exists"
    SLOW = "slow"
    LOST = "lost"
    OTHER = "other"


class Session:
    """
    Runs statements on a connection; they mark their parameters by ``?`` whatever the driver.

    Raises:
        ConfigError: the driver's parameter style is not known.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._style = param_style(connection)

    def run(self, statement: str, *parameters: object) -> int:
        """
        Run a statement and return how many rows it changed, as far as the driver knows.
        """
        cursor = self._executed(statement, parameters)
        try:
            return cursor.rowcount
        finally:
            cursor.close()

    def rows(
        self, statement: str, *parameters: object, most: int = 100
    ) -> list[tuple[object, ...]]:
        """
        Run a query and return its first rows.
        """
        cursor = self._executed(statement, parameters)
        try:
            return [tuple(row) for row in cursor.fetchmany(most)]
        finally:
            cursor.close()

    def columns(self, statement: str) -> list[str]:
        """
        Run a query and return its columns' names.
        """
        cursor = self._executed(statement, ())
        try:
            return [str(column[0]) for column in cursor.description or ()]
        finally:
            cursor.close()

    def _executed(self, statement: str, parameters: Sequence[object]) -> Cursor:
        cursor = self.connection.cursor()
        try:
            if not parameters:
                cursor.execute(statement)
            elif self._style == "named":
                named = {f"p{n}": value for n, value in enumerate(parameters, 1)}
                cursor.execute(_marked(statement, ":p{}"), named)
            else:
                cursor.execute(
                    _marked(statement, _MARKERS[self._style]), tuple(parameters)
                )
        except BaseException:
            # What went wrong is of more use than that the cursor cannot be closed either.
            with contextlib.suppress(Exception):
                cursor.close()
            raise
        return cursor


_MARKERS = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric": ":{}"}


def _marked(statement: str, marker: str) -> str:
    numbers = iter(range(1, statement.count("?") + 1))
    return re.sub(r"\?", lambda _: marker.format(next(numbers)), statement)


def is_operational(error: Exception) -> bool:
    """
    Whether a driver blames its connection or the server, and not the statement (PEP 249).
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"OperationalError", "InterfaceError"})


def driver_of(connection: Connection) -> str:
    """
    Return the name of the driver's package.

    Raises:
        ConfigError: the connection is of no DB-API driver.
    """
    for base in type(connection).__mro__:
        package = base.__module__.partition(".")[0]
        if hasattr(sys.modules.get(package), "paramstyle"):
            return package
    raise ConfigError(
        "The connection is of no DB-API 2.0 driver: its module declares no paramstyle."
    )


def param_style(connection: Connection) -> str:
    """
    Return the driver's parameter style, as its module declares it.

    Raises:
        ConfigError: it declares none that is known.
    """
    style = str(sys.modules[driver_of(connection)].__dict__["paramstyle"])
    if style not in {*_MARKERS, "named"}:
        raise ConfigError(f"The parameter style {style!r} of the driver is not known.")
    return style
