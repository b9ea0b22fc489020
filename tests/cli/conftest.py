"""
An installation made by the command line, and a way to run commands on it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from kagimori.cli.main import main


@dataclass
class Program:
    """
    Runs commands on one data folder.
    """

    data: Path

    def __call__(self, *arguments, input=None, language="en"):
        return CliRunner().invoke(
            main,
            ["--lang", language, *arguments],
            input=input,
            env={"KAGIMORI_DATA": str(self.data), "NO_COLOR": "1"},
        )

    def ok(self, *arguments, input=None):
        result = self(*arguments, input=input)
        assert 0 == result.exit_code, result.output
        return result

    def json(self, *arguments, input=None):
        return json.loads(self.ok(*arguments, "--json", input=input).stdout)

    def fails(self, code, *arguments, input=None):
        result = self(*arguments, input=input)
        assert code == result.exit_code, (result.exit_code, result.output)
        return result.stderr


@pytest.fixture
def program(tmp_path):
    """
    A program whose data folder does not exist yet.
    """
    return Program(tmp_path / "data")


@pytest.fixture
def installed(program, tmp_path):
    """
    A program whose data folder holds a fresh installation.
    """
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("a long and lonely passphrase\n")
    passphrase.chmod(0o600)
    program.ok(
        "init",
        "--issuer",
        "https://login.example.com",
        "--wrapper",
        f"passphrase:file:{passphrase}",
    )
    return program
