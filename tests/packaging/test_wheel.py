"""
The wheel works where there is no source tree.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.packaging.clean import ROOT, CleanEnvironment, clean_environment

BASIC = "Basic dGVzdGNsaWVudDpzZWNyZXQ="

LIBRARY_SCRIPT = """
import json, sys
import kagimori

ring = kagimori.open_ring(sys.argv[1], application="shop", wrapper=sys.argv[2])
protector = ring.protector("session")
opened = protector.unprotect(protector.protect(b"who"))
ring.close()
print(json.dumps({
    "payload": opened.payload.decode(),
    "module": kagimori.__file__,
    "modules": sorted(name for name in sys.modules if "." not in name),
}))
"""


def free_port() -> int:
    """
    Return a port that was free a moment ago.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def fetch(url: str, form: str | None = None) -> bytes:
    """
    Return the body of a 200 answer, by the standard library.
    """
    request = urllib.request.Request(url, data=form.encode() if form else None)
    if form:
        request.add_header("Authorization", BASIC)
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def wait_for(url: str, server: subprocess.Popen[bytes]) -> bytes:
    """
    Return the first answer of a server that is starting.
    """
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, "the server ended"
        try:
            return fetch(url)
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path):
    """
    Migrations, locales and py.typed are in the wheel; caches and tests are not.
    """
    source = ROOT / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "kagimori").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert expected == names
    assert "kagimori/py.typed" in names


def test_server_from_the_wheel_answers_with_a_token(
    server: CleanEnvironment, tmp_path: Path
):
    """
    `kagimori[server]` alone, installed outside the tree, serves the demo world.
    """
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                server.bin / "kagimori",
                *("serve", "--demo", "--data", tmp_path / "data"),
                *("--listen", address),
            ],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://{address}/healthz", process)
        answer = fetch(
            f"http://{address}/oauth/token",
            "grant_type=password&username=test&password=test",
        )
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=20)
    except BaseException as exc:
        exc.add_note(log.read_text("utf-8", "replace"))
        raise
    finally:
        process.kill()
        process.wait()

    assert code == 0
    assert list(json.loads(answer)) == [
        "token_type",
        "access_token",
        "expires_in",
        "refresh_token",
    ]
    assert "Traceback" not in log.read_text("utf-8")


@pytest.mark.parametrize(("lang", "sign"), [("en", "keys"), ("ja", "鍵")])
def test_command_line_from_the_wheel_speaks(
    library: CleanEnvironment, lang: str, sign: str
):
    """
    The library's own installation brings the command line with its texts in both languages.
    """
    assert sign in library.run("kagimori", "--lang", lang, "--help")


def test_library_from_the_wheel_opens_a_ring_without_a_web_framework(
    library: CleanEnvironment, tmp_path: Path
):
    """
    `kagimori` alone protects and unprotects, and loads no server, no template engine, no asyncio.
    """
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("a passphrase of several words")
    passphrase.chmod(0o600)

    said = library.run(
        "python",
        *("-c", LIBRARY_SCRIPT, f"file://{tmp_path}/ring"),
        f"passphrase:file:{passphrase}",
    )

    result = json.loads(said)
    assert result["payload"] == "who"
    assert Path(result["module"]).is_relative_to(library.folder / "venv")
    unwanted = {"asyncio", "click", "httptools", "jinja2", "starlette", "uvicorn"}
    assert unwanted.isdisjoint(result["modules"])
