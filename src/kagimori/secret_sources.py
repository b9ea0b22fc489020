"""
Where stores and wrappers take their secrets from: variables and files, never addresses.

Rules of this module:

1. Errors name the variable or the path, never what it holds.
2. A file that others may read is told of once; servers refuse it (K11).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kagimori.errors import ConfigError
from kagimori.events import Event, EventSink, Severity

_MOST_SECRET = 64 * 1024


def loose_secret_mode(path: Path) -> str | None:
    """
    Say how a file with a secret is open to others; ``None`` if it is not (K11).
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if os.name == "nt" or not mode & 0o077:
        return None
    return f"{path} has mode {mode:04o}, so that others may read it"


def from_environment(name: str) -> bytes:
    """
    Return a variable's secret.

    Raises:
        ConfigError: it is not set, or empty.
    """
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"The environment variable {name} is not set or empty.")
    return value.encode("utf-8", "surrogateescape")


def from_file(path: Path) -> bytes:
    """
    Return a file's secret.

    Raises:
        ConfigError: the file cannot be read.
    """
    data = read_file(path, _MOST_SECRET)
    # Editors end a file with a line break, which nobody means to be part of a secret.
    return data.removesuffix(b"\n").removesuffix(b"\r")


def read_file(path: Path, most: int) -> bytes:
    """
    Return what a file holds, `most` bytes at most.

    Raises:
        ConfigError: it cannot be read, or holds more.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise ConfigError(
            f"{path} cannot be read: {reason}.", hint="Check the path and its rights."
        ) from None
    if len(data) > most:
        raise ConfigError(f"{path} is larger than {most} bytes.")
    return data


# --- warnings ------------------------------------------------------------------------------

_warned: set[str] = set()


def warn_of_mode(path: Path, events: EventSink) -> None:
    """
    Tell once of a file with a secret that others may read.
    """
    loose = loose_secret_mode(path)
    if loose is not None:
        warn_once(events, f"{loose}. Take that right away (chmod 600).")


def warn_once(events: EventSink, text: str) -> None:
    """
    Tell of something once for each process: an application may open its ring in many places.
    """
    if text not in _warned:
        _warned.add(text)
        events.emit(Event("ring.warning", {"text": text}, Severity.WARNING))
