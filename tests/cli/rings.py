"""
Runs ring commands on one ring, which the environment names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner, Result

from kagimori.cli.main import main

PASSPHRASE = "four words and more words"
EXPORT_PASSPHRASE = "nine herons over tall reeds at dawn 7"


@dataclass
class RingProgram:
    """
    Runs ring commands on one ring, which the environment names.
    """

    folder: Path
    environ: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, *arguments: str, typed: str | bytes | None = None) -> Result:
        environ = {
            "KAGIMORI_DATA": None,
            "KAGIMORI_RING": f"file://{self.folder}/ring",
            # Clear keys: a passphrase costs a second a command, which few tests are about.
            "KAGIMORI_RING_WRAPPER": "plaintext:",
            "KAGIMORI_RING_APPLICATION": "shop",
            "RING_PASSPHRASE": PASSPHRASE,
            "EXPORT_PASSPHRASE": EXPORT_PASSPHRASE,
            "NO_COLOR": "1",
            "LANG": "C",
        }
        return CliRunner().invoke(
            main, ["ring", *arguments], input=typed, env={**environ, **self.environ}
        )

    def ok(self, *arguments: str, typed: str | bytes | None = None) -> Result:
        result = self(*arguments, typed=typed)
        assert 0 == result.exit_code, result.output
        return result

    def json(self, *arguments: str, typed: str | bytes | None = None):
        return json.loads(self.ok(*arguments, "--json", typed=typed).stdout)

    def fails(self, code: int, *arguments: str, typed: str | None = None) -> str:
        result = self(*arguments, typed=typed)
        assert code == result.exit_code, (result.exit_code, result.output)
        return result.stderr

    def wrap(self) -> None:
        """
        Let what follows be wrapped by a passphrase.
        """
        self.environ["KAGIMORI_RING_WRAPPER"] = "passphrase:env:RING_PASSPHRASE"

    def states(self) -> dict[str, str]:
        return {key["id"]: key["state"] for key in self.json("list")["keys"]}

    def current(self) -> str:
        (found,) = [id_ for id_, state in self.states().items() if state == "current"]
        return found
