"""
One worker of several: started by `kagimori.http.workers`, never by hand.

Arguments: data folder, sockets of the public and of the admin listener, the descriptor to tell
readiness on, the descriptor that ends with the parent.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from kagimori.errors import KagimoriError
from kagimori.http import logs
from kagimori.http.report import StartReport
from kagimori.http.server import ServerProcess, run
from kagimori.http.workers import PERMANENT
from kagimori.settings import read_settings


def main(arguments: Sequence[str]) -> int:
    """
    Serve until told to end; return the exit status.
    """
    folder, public, admin, ready, lifeline = arguments
    try:
        settings = read_settings(Path(folder))
        logs.configure(settings.server.log_level)
        process = ServerProcess(settings, _sockets(public), _sockets(admin))

        def started(report: StartReport) -> None:
            asyncio.get_running_loop().add_reader(int(lifeline), process.end)
            os.write(int(ready), b"1")
            os.close(int(ready))

        run(process, started)
    except KagimoriError as error:
        sys.stderr.write(f"{error}\n")
        return PERMANENT
    return 0


def _sockets(numbers: str) -> list[socket.socket]:
    return [socket.socket(fileno=int(number)) for number in numbers.split(",")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
