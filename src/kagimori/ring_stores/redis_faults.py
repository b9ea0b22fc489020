"""
What is said about a Redis server that refuses or does not answer.

Nothing here quotes the server's sentence but its first word, which is a code.
"""

from __future__ import annotations

from kagimori.errors import RingMalformedError, RingUnreadableError, StoreError

READ_COMMANDS = ("llen", "lindex", "lrange", "multi", "exec")
WRITE_COMMANDS = ("watch", "unwatch", "lrem", "rpush", "discard")

_SIGN_IN = {"WRONGPASS", "NOAUTH"}
_PASSING = {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN"}


def _classes(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def is_lost(error: Exception) -> bool:
    """
    Whether a connection died or fell silent.
    """
    kinds = _classes(error)
    # Refusals of the sign-in are connection errors too, but no new connection mends them.
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    return bool(kinds & {"ConnectionError", "TimeoutError"}) and not kinds & {
        "AuthenticationError",
        "AuthorizationError",
        "BusyLoadingError",
        "MaxConnectionsError",
    }


def is_conflict(error: Exception) -> bool:
    """
    Whether somebody wrote to a watched key.
    """
    return "WatchError" in _classes(error)


def code_of(error: Exception) -> str:
    """
    Return the code that a server's refusal begins with; empty where it has none.
    """
    kinds = _classes(error)
    if "ExecAbortError" in kinds:
        return "EXECABORT"
    for kind, code in _BY_CLASS.items():
        if kind in kinds:
            return code
    # A pipeline puts its own words, with the command, before those of the server.
    word = str(error).rpartition("caused error: ")[2].partition(" ")[0]
    return word if word.isascii() and word.isalpha() and word.isupper() else ""


# redis-py takes the code away from those that it has a class for.
_BY_CLASS = {
    "NoPermissionError": "NOPERM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "OutOfMemoryError": "OOM",
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
}


def declared(
    error: Exception, *, where: str, key: str, user: str, read_only: bool
) -> StoreError | RingUnreadableError:
    """
    Return the declared error of a client's exception.
    """
    code = code_of(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            f"{where}: nobody vouches for the server's certificate, or it is another's.",
            hint="Name its authority by ca=, and the server by the name in its certificate.",
        )
    detail = f"{type(error).__name__} {code}".strip()
    if code == "NOPERM" or (code == "EXECABORT" and not is_lost(error)):
        names = READ_COMMANDS if read_only else (*READ_COMMANDS, *WRITE_COMMANDS)
        commands = " ".join(f"+{name}" for name in names)
        return StoreError(
            f"{where}: the user {user} lacks a right on the key {key}.",
            hint=f"ACL SETUSER {user} ~{key} {commands}",
            detail=detail,
        )
    if code in _SIGN_IN:
        return StoreError(
            f"{where} refuses the sign-in of the user {user}.",
            hint="Check user and password (password-env=, password-file=).",
            detail=detail,
        )
    if code == "WRONGTYPE":
        return RingMalformedError(
            f"{where}: the key holds no list.", hint="Name another key by key="
        )
    if code == "READONLY":
        return StoreError(
            f"{where} takes no writes: it is a replica.",
            hint="Name the primary, or open the ring read-only.",
            detail=detail,
            transient=True,
        )
    if code == "MISCONF":
        return StoreError(
            f"{where} takes no writes: it cannot write to its disk.",
            hint="Look at its log and its disk.",
            detail=detail,
            transient=True,
        )
    if code == "OOM":
        return StoreError(
            f"{where} takes no writes: its memory is full.",
            hint="Raise maxmemory.",
            detail=detail,
            transient=True,
        )
    if is_lost(error) or code in _PASSING or "MaxConnectionsError" in _classes(error):
        return StoreError(
            f"{where} does not answer.",
            hint="Check that the server runs and can be reached from here.",
            detail=detail,
            transient=True,
        )
    return StoreError(
        f"{where} refuses.", hint="The server's log says why.", detail=detail
    )
