"""
The operator at the command line: what is done to a ring, or asked of slots, by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from demos.swap.shop import APPLICATION

TOKEN = "KAGIMORI_PEER_TOKEN"
_SECONDS = 60.0


class OperatorError(Exception):
    """
    A command failed.
    """


def rotate(ring: Mapping[str, str]) -> str:
    """
    Replace a ring's current key at once, as after a leak; return the new key's id.

    Args:
        ring: the variables that name it.

    Raises:
        OperatorError: it was refused.
    """
    done = _kagimori(
        *("ring", "rotate", "--now", "--emergency", "--yes", "--json"),
        *("--ring", ring["KAGIMORI_RING"], "--wrapper", ring["KAGIMORI_RING_WRAPPER"]),
        *("--application", APPLICATION, "--reason", "demo"),
    )
    if done.returncode:
        raise OperatorError(done.stderr)
    key: str = json.loads(done.stdout)["key"]["id"]
    return key


@dataclass(frozen=True)
class Proof:
    """
    What the doctor says of two slots.

    Attributes:
        holds: whether each reads what the other writes.
        lines: what it says, in the language of the reader.
    """

    holds: bool
    lines: tuple[str, ...]


def prove(slots: Mapping[str, str], token: str, language: str) -> Proof:
    """
    Let the doctor ask two slots whether they read each other, before anybody is sent there.

    Args:
        slots: their addresses, by name.
        token: what the slots ask for.
    """
    peers = [word for url in slots.values() for word in ("--peer", url)]
    done = _kagimori("ring", "doctor", *peers, "--lang", language, **{TOKEN: token})
    said = done.stdout + done.stderr
    # It goes by addresses, the story by names.
    for name, url in slots.items():
        said = said.replace(urlsplit(url).netloc, name)
    return Proof(done.returncode == 0, tuple(filter(None, said.splitlines())))


def _kagimori(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kagimori.cli.main", *words],
        env={**os.environ, "PYTHONUTF8": "1", **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=_SECONDS,
        check=False,
    )
