"""
Rotates the signing keys of one data folder as fast as it can until it is killed.

Run as ``python -m tests.e2e.rotator FOLDER``. Each key id is printed once its rotation has been
acknowledged: it stands in the ring from then on, whatever happens.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kagimori.compose import opened
from kagimori.keys.journal import Cause
from kagimori.keys.timeline import KeyUse
from kagimori.settings import read_settings

CAUSE = Cause("e2e", "killed at any moment")


async def rotate(data: Path) -> None:
    """
    Replace the NEXT key some times, then switch, and so on.
    """
    async with opened(read_settings(data, {})) as installation:
        while True:
            for _ in range(5):
                await installation.keys.rotate(
                    "default", KeyUse.SIGNING, replace=True, cause=CAUSE
                )
            outcome = await installation.keys.rotate(
                "default", KeyUse.SIGNING, now_flag=True, emergency=True, cause=CAUSE
            )
            sys.stdout.write(f"{outcome.key.kid}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(rotate(Path(sys.argv[1])))
