"""
The transcript of part C against a real server (ACC-1, ACC-2, ACC-5, ACC-6).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.server import (
    MACHINE,
    PASSWORD,
    TESTCLIENT,
    cli,
    environment,
    rotate,
    serving,
)


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def kid(token):
    part = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["kid"]


def test_ACC_1_ACC_6_the_transcript_with_a_rotation_between_any_two_steps(tmp_path):
    """
    Sign in, use, turn the key, use, refresh, turn, use, restart, use, refresh: nothing fails.
    """
    data = tmp_path / "data"
    with serving(data) as server:
        c = server.client
        first = c.sign_in()
        assert ["token_type", "access_token", "expires_in", "refresh_token"] == list(first)
        rotate(data)
        assert b"Secret area" == c.get(f"/secret?access_token={first['access_token']}").body

        second = c.refresh(first["refresh_token"]).json
        assert kid(second["access_token"]) != kid(first["access_token"])
        rotate(data)
        assert b"Secret area" == c.get(f"/secret?access_token={second['access_token']}").body
        third = c.refresh(second["refresh_token"])
        assert 200 == third.status
        assert 0 == server.stop()

    with serving(data, port=server.port) as again:
        token = third.json["access_token"]
        assert b"Secret area" == again.client.get(f"/secret?access_token={token}").body
        rotate(data)
        fourth = again.client.refresh(third.json["refresh_token"]).json
        assert 20 == claims(fourth["access_token"])["exp"] - claims(fourth["access_token"])["iat"]
        assert 200 == again.client.get(f"/secret?access_token={fourth['access_token']}").status


def test_ACC_1_an_expired_token_gets_the_body_of_2015(tmp_path):
    """
    Twenty seconds later the answer is 401 with the numeric code; a refresh goes on.
    """
    with serving(tmp_path / "data") as server:
        c = server.client
        first = c.sign_in()
        expires = claims(first["access_token"])["exp"]
        time.sleep(max(0.0, expires - time.time()) + 0.05)
        expired = c.get(f"/secret?access_token={first['access_token']}")
        after = c.refresh(first["refresh_token"])
        used = c.get(f"/secret?access_token={after.json['access_token']}")

    assert 401 == expired.status
    assert (
        b'{"code":401,"error":"invalid_token",'
        b'"error_description":"The access token provided has expired."}'
    ) == expired.body
    assert (200, b"Secret area") == (used.status, used.body)


def test_ACC_2_the_default_profile_with_rotations(tmp_path):
    """
    Client credentials, the header only, and a rotation between the steps.
    """
    data = tmp_path / "data"
    with serving(data) as server:
        c = server.client
        refused = c.post("/oauth/token", PASSWORD, MACHINE)
        answer = c.machine()
        rotate(data)
        by_header = c.get("/api/secret", answer["access_token"])
        by_query = c.get(f"/api/secret?access_token={answer['access_token']}")
        bare = c.get("/api/secret")
        bad = c.get("/api/secret", answer["access_token"][:-4] + "AAAA")

    assert (400, "unauthorized_client") == (refused.status, refused.json["error"])
    assert ("Bearer", 600) == (answer["token_type"], answer["expires_in"])
    assert (200, b"Secret area") == (by_header.status, by_header.body)
    assert 401 == by_query.status
    assert ("Bearer", b"") == (bare.headers["www-authenticate"], bare.body)
    assert (401, ["error", "error_description"]) == (bad.status, list(bad.json))


def test_ACC_4_ACC_5_a_used_refresh_token(tmp_path):
    """
    Twice at once: the same successor. Another client's Basic: refused. Revoked: over at once.
    """
    with serving(tmp_path / "data") as server:
        c = server.client
        first = c.sign_in()
        one = c.refresh(first["refresh_token"]).json
        two = c.refresh(first["refresh_token"]).json
        form = {"grant_type": "refresh_token", "refresh_token": one["refresh_token"]}
        stranger = c.post("/oauth/token", form, MACHINE)
        wrong = c.post("/oauth/token", PASSWORD, "Basic dGVzdGNsaWVudDp3cm9uZw==")
        revoked = c.post("/oauth/revoke", {"token": one["refresh_token"]}, TESTCLIENT)
        over = c.refresh(one["refresh_token"])
        told = c.post("/oauth/introspect", {"token": one["refresh_token"]}, TESTCLIENT)

    assert one["refresh_token"] == two["refresh_token"]
    assert one["access_token"] != two["access_token"]
    assert (400, True) == (stranger.status, stranger.json["error"] in (
        "invalid_grant", "unauthorized_client"
    ))
    assert 401 == wrong.status
    assert "www-authenticate" in wrong.headers
    assert (200, b"") == (revoked.status, revoked.body)
    assert (400, "invalid_grant") == (over.status, over.json["error"])
    assert told.status in (200, 401)
    assert {"active": False} == told.json or 401 == told.status


CURL = """
import sys, urllib.request
args, headers, data, url = sys.argv[1:], {}, None, None
while args:
    arg = args.pop(0)
    if arg == "-H":
        name, _, value = args.pop(0).partition(": ")
        headers[name] = value
    elif arg == "-d":
        data = args.pop(0).encode()
    elif arg == "-X":
        args.pop(0)
    elif arg != "-s":
        url = arg
request = urllib.request.Request("http://" + url, data, headers)
sys.stdout.write(urllib.request.urlopen(request).read().decode())
"""


@pytest.fixture
def shell(tmp_path):
    """
    Return a PATH on which `kagimori` and `curl` are found (a stand-in where there is no curl).
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    python = sys.executable
    scripts = {"kagimori": f'exec "{python}" -m kagimori.cli.main "$@"'}
    if shutil.which("curl") is None:
        (folder / "curl.py").write_text(CURL)
        scripts["curl"] = f'exec "{python}" "{folder}/curl.py" "$@"'
    for name, line in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o700)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_ACC_1_what_the_server_prints_can_be_pasted(tmp_path, shell):
    """
    The printed lines, run by a shell as they stand, give tokens and the secret area twice.
    """
    with serving(tmp_path / "data") as server:
        lines = server.report["transcript"]
        done = subprocess.run(
            ["sh", "-e", "-c", "\n".join(lines)],
            env=environment({"PATH": shell}),
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert 0 == done.returncode, done.stderr
    assert 2 == done.stdout.count("Secret area")
    last = json.loads(done.stdout[done.stdout.rindex('{"token_type"') :])
    assert "bearer" == last["token_type"]


def test_a_person_is_told_calmly_how_the_server_stands(tmp_path):
    """
    Without --json: where data lies, keys and until when, what is unfit and its remedy, the lines.
    """
    import signal

    from tests.e2e.server import command, free_port

    port = free_port()
    for language, words in (
        ("en", ["Not fit for production", "kagimori init", "/oauth/token"]),
        ("ja", ["鍵", "kagimori init", "/oauth/token"]),
    ):
        data = tmp_path / language
        call = command("serve", "--demo", "--lang", language, "--data", str(data))
        with (tmp_path / "said").open("w+") as said:
            process = subprocess.Popen(
                [*call, "--listen", f"localhost:{port}", "--admin-listen", "127.0.0.1:0"],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment(),
            )
            try:
                deadline = time.monotonic() + 60
                while "refresh_token=$RT" not in Path(said.name).read_text():
                    assert time.monotonic() < deadline, Path(said.name).read_text()
                    time.sleep(0.05)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            text = Path(said.name).read_text()
        for word in [*words, str(data), "ES256", f"localhost:{port}"]:
            assert word in text


def test_the_command_line_works_beside_the_server(tmp_path):
    """
    keys list shows what the server signs with; a rotation is seen within a second.
    """
    data = tmp_path / "data"
    with serving(data) as server:
        signs = kid(server.client.machine()["access_token"])
        listed = cli("keys", "list", "--json", data=data)
        rotated = rotate(data)
        deadline = time.monotonic() + 1.0
        while (now := kid(server.client.machine()["access_token"])) == signs:
            assert time.monotonic() < deadline, rotated

    current = [
        key["kid"]
        for key in listed
        if (key["use"], key["algorithm"], key["state"]) == ("signing", "ES256", "current")
    ]
    assert [signs] == current
    assert now != signs
