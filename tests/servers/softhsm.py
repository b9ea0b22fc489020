"""
SoftHSM: a real PKCS#11 module whose tokens are folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from tests.servers.installing import require
from tests.servers.processes import own_folder

PIN = "493827"
SO_PIN = "61283746"
TOKENS = ("ring", "other", "removable", "locked", "twin", "twin")

# In a process of its own, so that it shares no session with those that are tested.
_CHANGE_KEYS = """
import json, sys
import pkcs11
given = json.load(sys.stdin)
module = pkcs11.lib(given["module"])
for label, keys in given["tokens"].items():
    token = module.get_token(token_label=label)
    with token.open(rw=True, user_pin=given["pin"]) as session:
        for key in session.get_objects() if keys is None else ():
            key.destroy()
        for key in keys or ():
            template = {
                pkcs11.Attribute[name]: value for name, value in key["attributes"].items()
            }
            session.generate_key(
                pkcs11.KeyType[key["kind"]], key["bits"], label=key["label"],
                id=bytes.fromhex(key["id"]), store=True, template=template,
            )
"""


@dataclass(frozen=True)
class HsmKey:
    """
    A key to be made; it never leaves its token, unless its attributes say otherwise.
    """

    label: str
    id: str = ""
    kind: str = "AES"
    bits: int = 256
    attributes: dict[str, bool] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        firm = {"SENSITIVE": True, "EXTRACTABLE": False}
        return {**asdict(self), "attributes": {**firm, **self.attributes}}


class SoftHsm:
    """
    The module and its tokens, `TOKENS`, all of one PIN.

    The module of a process knows the tokens that were there when it was first used; keys may
    come at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.tokens = folder / "tokens"
        self.settings = folder / "softhsm2.conf"
        self.module = require(
            "libsofthsm2.so",
            apt="softhsm2",
            also_in=("/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/lib64/pkcs11"),
        )

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[SoftHsm]:
        """
        Make the tokens in a folder of their own, and let this process find them.
        """
        program = require("softhsm2-util", apt="softhsm2")
        with own_folder("softhsm") as folder, pytest.MonkeyPatch.context() as patch:
            hsm = cls(folder)
            hsm.tokens.mkdir(mode=0o700)
            hsm.settings.write_text(
                f"directories.tokendir = {hsm.tokens}\nlog.level = ERROR\n"
            )
            patch.setenv("SOFTHSM2_CONF", str(hsm.settings))
            for label in TOKENS:
                words = ["--init-token", "--free", "--label", label]
                pins = ["--pin", PIN, "--so-pin", SO_PIN]
                _run([program, *words, *pins])
            yield hsm

    def add_keys(self, **keys: Sequence[HsmKey]) -> None:
        """
        Make keys, by the label of their token.
        """
        self._change(
            {token: [key.as_json() for key in ours] for token, ours in keys.items()}
        )

    def remove_keys(self, token: str) -> None:
        """
        Destroy all keys of a token.
        """
        self._change({token: None})

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """
        Take the tokens away for a while.
        """
        away = self.tokens.with_name("away")
        self.tokens.rename(away)
        self.tokens.mkdir()
        try:
            yield
        finally:
            self.tokens.rmdir()
            away.rename(self.tokens)

    def _change(self, tokens: dict[str, list[dict[str, object]] | None]) -> None:
        given = {"module": str(self.module), "pin": PIN, "tokens": tokens}
        _run([sys.executable, "-c", _CHANGE_KEYS], json.dumps(given))


def _run(command: list[str | Path], text: str = "") -> None:
    done = subprocess.run(
        command,
        input=text,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
