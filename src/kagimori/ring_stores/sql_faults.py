"""
What is said about a database that refuses or does not answer.

Nothing here quotes a driver's sentence: it may hold a row's content, or a password.
"""

from __future__ import annotations

from kagimori.errors import StoreError
from kagimori.ring_stores.sql_connection import Fault

_TRANSIENT = {Fault.LOST, Fault.SLOW, Fault.CONFLICT, Fault.EXISTS}

_TEXTS = {
    Fault.NO_DATABASE: ("{where}: there is no such database.", "Create it first."),
    Fault.NOT_SIGNED_IN: (
        "{where} refuses the sign-in.",
        (
            "Check user and password (password-env=, password-file=), and what the server "
            "asks of connections from here (TLS, hosts)."
        ),
    ),
    Fault.READ_ONLY: (
        "{where} takes no writes: it is a replica or was opened read-only.",
        "Name the primary, or open the ring read-only.",
    ),
    Fault.CONFLICT: (
        "{where} could not bring this into order with what others do.",
        "Try again in a moment.",
    ),
    Fault.SLOW: (
        "{where} did not finish in time.",
        "Try again in a moment; if it lasts, look for locks on the table and for load.",
    ),
    Fault.LOST: (
        "{where} does not answer.",
        "Check that the server runs and can be reached from here.",
    ),
}


def declared(
    fault: Fault,
    error: Exception,
    *,
    where: str,
    table: str,
    role: str,
    remedy: str,
) -> StoreError:
    """
    Return the declared error of a fault.
    """
    detail = " ".join(
        str(part)
        for part in (
            type(error).__name__,
            getattr(error, "sqlstate", None)
            or getattr(error, "sqlite_errorname", None)
            or _number(error),
        )
        if part
    )
    if fault is Fault.FORBIDDEN:
        who = f"the role {role}" if role else "this role"
        return StoreError(
            f"{where}: {who} lacks a right on the table {table}.",
            hint=remedy.format(table=table, role=role or "the role"),
            detail=detail,
        )
    text, hint = _TEXTS.get(
        fault, ("{where} refuses.", "The server's log says why; detail has its code.")
    )
    return StoreError(
        text.format(where=where),
        hint=hint,
        detail=detail,
        transient=fault in _TRANSIENT,
    )


def _number(error: Exception) -> object:
    first = error.args[0] if error.args else None
    is_code = type(first) is int or (isinstance(first, str) and len(first) == 5)
    return first if is_code else None
