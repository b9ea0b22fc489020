"""
An installation made by the command line, and a way to run commands on it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from kagimori.cli.main import main
from tests.cli.rings import RingProgram


@dataclass
class Program:
    """
    Runs commands on one data folder.
    """

    data: Path

    def __call__(self, *arguments, typed=None, language="en"):
        return CliRunner().invoke(
            main,
            ["--lang", language, *arguments],
            input=typed,
            env={"KAGIMORI_DATA": str(self.data), "NO_COLOR": "1"},
        )

    def ok(self, *arguments, typed=None):
        result = self(*arguments, typed=typed)
        assert 0 == result.exit_code, result.output
        return result

    def json(self, *arguments, typed=None):
        return json.loads(self.ok(*arguments, "--json", typed=typed).stdout)

    def fails(self, code, *arguments, typed=None):
        result = self(*arguments, typed=typed)
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


@pytest.fixture
def bare(tmp_path):
    """
    A program whose ring is not there yet.
    """
    return RingProgram(tmp_path)


@pytest.fixture
def ring(bare):
    """
    A program whose ring holds its first key.
    """
    bare.ok("init")
    return bare


@pytest.fixture
def turned(ring):
    """
    A program whose ring holds a previous key and a current one.
    """
    ring.ok("rotate", "--now", "--emergency", "--yes")
    return ring
