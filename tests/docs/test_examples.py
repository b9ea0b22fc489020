"""
Every example of the documents runs, in the order in which a reader meets it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kagimori.settings import Settings
from tests.docs.examples import ROOT, Page, pages_with

BIN = Path(sys.executable).parent

# `kagimori serve` runs until it is told to end: it is, as soon as it answers.
PREAMBLE = """
set -euo pipefail
serve() {
  kagimori serve "$@" &
  local server=$!
  for _ in $(seq 300); do
    if curl --silent --fail "http://$PRODUCTION/healthz"; then break; fi
    sleep 0.1
  done
  curl --silent --fail "http://$PRODUCTION/healthz"
  kill -TERM $server
  wait $server
}
"""


def free_address(host: str = "localhost") -> str:
    """
    Return an address on loopback that was free a moment ago.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"{host}:{listener.getsockname()[1]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    Return the folder that stands for the reader's own.
    """
    (tmp_path / "lib" / "shop").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """
    Return the environment that a reader who follows the documents has.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KAGIMORI_")
    }
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
        "LANG": "C.UTF-8",
        "KAGIMORI_PASSPHRASE": "four words and more words",
        "SHOP_PASSPHRASE": "four words and more words",
    }


@pytest.fixture
def address(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """
    Run the demo world in the folder; return where it answers.
    """
    chosen = free_address()
    log = folder / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [BIN / "kagimori", "serve", "--demo", "--listen", chosen],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://{chosen}/healthz", timeout=5).close()
                break
            except OSError:
                # Not there yet, or slow to answer: URLError and TimeoutError alike.
                assert server.poll() is None, log.read_text("utf-8")
                assert time.monotonic() < deadline, log.read_text("utf-8")
                time.sleep(0.05)
        yield chosen
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """
    Run a command to its good end; return what it printed.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def here(text: str, folder: Path, address: str) -> str:
    """
    Return an example with the reader's places replaced by ours.
    """
    for foreign, ours in [
        ("/var/lib/shop", str(folder / "lib" / "shop")),
        ("localhost:3000", address),
        (".venv/bin/kagimori", "kagimori"),
    ]:
        text = text.replace(foreign, ours)
    return text


@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.path.name)
def test_python_examples_run(
    page: Page, folder: Path, environment: dict[str, str], address: str
):
    """
    A page's Python runs from top to bottom, and what it asserts is so.
    """
    program = here(page.python, folder, address)

    run([sys.executable, "-W", "error", "-c", program], folder, environment)

    assert list((folder / "lib/shop/ring").glob("key-*.xml"))


@pytest.mark.parametrize("page", pages_with("sh"), ids=lambda page: page.path.name)
def test_shell_examples_run(
    page: Page, folder: Path, environment: dict[str, str], address: str
):
    """
    A page's commands run from top to bottom, and each ends well.
    """
    production = free_address("127.0.0.1")
    script = here(page.shell, folder, address).replace("127.0.0.1:8080", production)
    script = re.sub(r"^kagimori serve", "serve", script, flags=re.MULTILINE)

    said = run(
        ["bash", "-c", PREAMBLE + script],
        folder,
        {**environment, "PRODUCTION": production},
    )

    assert "Traceback" not in said
    if page.path.name == "README.md":
        assert said.count("Secret area") == 2
        assert said.count('"access_token"') == 2
        assert said.count('"refresh_token"') == 2


def setting_rows() -> dict[str, str]:
    """
    Return each setting of the page of settings with its default.
    """
    text = (ROOT / "docs/settings.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]*) \|", text, re.MULTILINE)
    return {name: default.strip().strip("`") for name, default in rows}


def described(value: object) -> str:
    """
    Return a default as the page writes it.
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value not in (None, (), {}) else "none"


def defaults(settings: msgspec.Struct) -> dict[str, str]:
    """
    Return each setting with its default, those of the tables included.
    """
    found: dict[str, str] = {}
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, msgspec.Struct):
            found |= defaults(value)
        else:
            found[name] = described(value)
    return found


def test_every_setting_is_described_with_its_default():
    """
    The page of settings lists what `kagimori.toml` may hold, and what each is when left out.
    """
    expected = defaults(Settings(issuer="https://login.example.com"))
    del expected["data"]  # the folder that the file lies in
    by_init = {"issuer": "by `init", "wrapper": "by `init"}

    assert expected | by_init == setting_rows()


def test_example_of_settings_is_one(tmp_path: Path):
    """
    The example file on the page of settings is accepted.
    """
    (text,) = Page(ROOT / "docs/settings.md").blocks("toml")

    settings = msgspec.convert(tomllib.loads(text), Settings)

    assert settings.validate().server.workers == 2
