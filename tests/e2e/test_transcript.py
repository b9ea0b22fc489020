"""
Part C, the transcript of 2015, as acceptance: ACC-1 to ACC-6.

By plain curl and by a client against the real program; what needs days, or a look at the store,
runs in this process with a clock of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import time
from datetime import timedelta

import pytest

from kagimori.keys.journal import Cause
from kagimori.keys.timeline import KeyUse
from tests.e2e.server import (
    EMERGENCY,
    KAGIMORI,
    PASSWORD,
    TESTCLIENT,
    basic,
    claims,
    environment,
    eventually,
    header,
    kid,
    verifier_of,
)
from tests.http.world import world

LIFE = 20
MEMBERS = ["token_type", "access_token", "expires_in", "refresh_token"]
EXPIRED = (
    b'{"code":401,"error":"invalid_token",'
    b'"error_description":"The access token provided has expired."}'
)


def run(tmp_path, work):
    async def scene():
        async with world(tmp_path) as made:
            return await work(made)

    return asyncio.run(scene())


def await_expiry(client, token):
    """
    Wait until a token is over: 20 s is the shortest life that there is.
    """
    time.sleep(max(0, claims(token)["exp"] - time.time() - 0.05))
    assert eventually(lambda: client.secret(token).status != 200, 5)


class Curl:
    """
    Sends requests as a newcomer does.
    """

    def __init__(self, port):
        self.address = f"localhost:{port}"

    def __call__(self, *arguments):
        """
        Return status, header fields and body of what curl shows.
        """
        done = subprocess.run(
            ["curl", "-s", "-i", *arguments],
            capture_output=True,
            timeout=30,
            check=True,
            env=environment(),
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split(" ")[1]), fields, body

    def token(self, data):
        return self(
            *("-X", "POST", "-H", f"Authorization: {TESTCLIENT}", "-d", data),
            f"{self.address}/oauth/token",
        )

    def sign_in(self):
        return self.token("grant_type=password&username=test&password=test")

    def refresh(self, token):
        return self.token(f"refresh_token={token}&grant_type=refresh_token")

    def secret(self, token):
        return self(f"{self.address}/secret?access_token={token}")


def check_tokens(status, fields, body):
    """
    Assert that an answer is exactly that of steps 1 and 4; return its members.
    """
    assert (200, "application/json") == (status, fields["content-type"]), body
    assert ("no-store", "no-cache") == (fields["cache-control"], fields["pragma"])
    pairs = json.loads(body, object_pairs_hook=list)
    assert MEMBERS == [name for name, _ in pairs]
    members = dict(pairs)
    assert ("bearer", LIFE) == (members["token_type"], members["expires_in"])
    said = claims(members["access_token"])
    assert LIFE == said["exp"] - said["iat"]
    return members


# --- the real program ----------------------------------------------------------------------


def test_ACC_1_ACC_6_the_transcript_by_curl_with_rotations_between_any_two_steps(demo):
    """
    Steps 1 to 4 by plain curl: undisturbed, with one rotation in each gap, and with one in all.
    """
    curl = Curl(demo.port)
    clock = demo.client()

    def rotate():
        demo.program.ok(*EMERGENCY)

    runs = {
        name: check_tokens(*curl.sign_in())
        for name in ("between 1 and 2", "between 2 and 3", "everywhere")
    }

    def step_2(name):
        status, fields, body = curl.secret(runs[name]["access_token"])
        assert (200, b"Secret area") == (status, body), name
        assert fields["content-type"].startswith("text/plain")
        assert "no-store" in fields["cache-control"]

    step_2("between 2 and 3")
    rotate()
    step_2("between 1 and 2")
    step_2("everywhere")
    rotate()
    runs |= {
        name: check_tokens(*curl.sign_in()) for name in ("never", "between 3 and 4")
    }
    step_2("never")
    step_2("between 3 and 4")
    kids = {name: kid(tokens["access_token"]) for name, tokens in runs.items()}

    await_expiry(clock, runs["never"]["access_token"])
    for name, tokens in runs.items():
        status, fields, body = curl.secret(tokens["access_token"])
        assert (401, EXPIRED) == (status, body), name
        assert "application/json" == fields["content-type"]
        assert (
            'bearer error="invalid_token", '
            'error_description="the access token provided has expired."'
        ) == fields["www-authenticate"]

    def step_4(name):
        old, new = runs[name], check_tokens(*curl.refresh(runs[name]["refresh_token"]))
        assert old["access_token"] != new["access_token"]
        assert old["refresh_token"] != new["refresh_token"]
        assert (200, b"Secret area") == curl.secret(new["access_token"])[::2]
        return kid(new["access_token"])

    undisturbed = {step_4(n) for n in ("never", "between 1 and 2", "between 2 and 3")}
    rotate()
    after = {step_4(name) for name in ("between 3 and 4", "everywhere")}

    # The rotations were real: three keys signed steps 1 and 4.
    assert {kids["never"]} == undisturbed
    assert 3 == len({*kids.values(), *after})
    assert demo.program.current() in after


def test_ACC_1_the_lines_that_the_server_prints_run_when_pasted(make_server, tmp_path):
    """
    What `serve --demo` shows to try runs in a shell as it stands, a rotation included.
    """
    server = make_server().start("--access-log", for_people=True)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/kagimori"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(KAGIMORI)} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"

    lines = [
        line.strip()
        for line in server.said.splitlines()
        if line.startswith(("  A=", "  AT=", "  curl", "  kagimori"))
    ]
    pasted = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        env=environment({"PATH": path}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 6 == len(lines), server.said
    assert 0 == pasted.returncode, pasted.stderr
    assert 2 == pasted.stdout.count("Secret area")
    assert 2 == pasted.stdout.count('{"token_type":"bearer","access_token":"eyJ')
    # C3: a token in a query string reaches no log of ours.
    assert "/secret" in server.log
    assert "eyJ" not in server.log


def test_ACC_1_other_methods_and_refusals_by_curl(demo):
    """
    405 with Allow and an invalid_request body; each refusal as the specification words it.
    """
    curl = Curl(demo.port)
    token = f"{curl.address}/oauth/token"
    post = ("-X", "POST", "-H", f"Authorization: {TESTCLIENT}")

    for method in ("GET", "PUT", "PATCH", "DELETE"):
        status, fields, body = curl("-X", method, token)
        assert 405 == status
        assert "post, options" == fields["allow"]
        assert body.startswith(b'{"error":"invalid_request","error_description":"')

    wrong_user = "grant_type=password&username=test&password=wrong"
    cases = [
        (curl(*post, "-d", wrong_user, token), 400, b'{"error":"invalid_grant"'),
        (curl(*post, "-d", "username=test", token), 400, b'{"error":"invalid_request"'),
        (
            curl("-X", "POST", "-u", "testclient:wrong", "-d", wrong_user, token),
            401,
            b'{"error":"invalid_client"',
        ),
        (
            curl(f"{curl.address}/secret"),
            400,
            b'{"code":400,"error":"invalid_request"',
        ),
        (
            curl(f"{curl.address}/secret?access_token=nonsense"),
            401,
            b'{"code":401,"error":"invalid_token"',
        ),
    ]

    for (status, fields, body), expected, begins in cases:
        assert (expected, True) == (status, body.startswith(begins)), body
        assert ("www-authenticate" in fields) == (status == 401)
    assert check_tokens(*curl.sign_in())


def test_ACC_2_ACC_4_the_default_profile_by_a_client(demo):
    """
    No password grant, tokens in the header only, Bearer in upper case; refresh tokens are ours.
    """
    made = demo.program.json(
        *("clients", "create", "shop", "--grant", "refresh_token", "--scope", "api"),
        *("--api", "api", "--allow-operator-grants"),
    )
    shop = basic("shop", made["secret"])
    client = demo.client()

    refused = eventually(
        lambda: _unless(client.post("/oauth/token", PASSWORD, shop), 401), 2
    )
    issued = demo.program.json("tokens", "issue", "--client", "shop", "--user", "test")
    renewed = client.refresh(issued["refresh_token"], shop)
    demo.program.ok(*EMERGENCY)
    again = client.refresh(renewed["refresh_token"], shop)

    assert (400, "unauthorized_client") == (refused.status, refused.json["error"])
    for answer in (issued, renewed, again):
        assert ("Bearer", "api") == (answer["token_type"], answer["scope"])
        token = answer["access_token"]
        shown = client.api_secret(token)
        assert (200, b"Secret area") == (shown.status, shown.body)
        assert 401 == client.get(f"/api/secret?access_token={token}").status
        assert 401 == client.get("/secret", token).status
        assert ("at+jwt", "ES256") == (header(token)["typ"], header(token)["alg"])
        said = claims(token)
        assert (demo.issuer, "urn:kagimori:api", "shop") == tuple(
            said[name] for name in ("iss", "aud", "client_id")
        )
        assert {"jti", "fid", "sub"} <= set(said)
        assert "user" not in said
    # Another program verifies with the JWKS alone, across the rotation.
    verifier = verifier_of(demo, client.jwks())
    subjects = {
        verifier.verify(a["access_token"]).claims["sub"] for a in (issued, again)
    }
    assert 1 == len(subjects)
    assert kid(renewed["access_token"]) != kid(again["access_token"])


def _unless(answer, status):
    return None if answer.status == status else answer


def test_ACC_4_a_used_refresh_token_follows_the_state_machine(demo):
    """
    B5: twice at once and again after a lost answer give the same successor; none is logged out.
    """
    client = demo.client()
    first = client.password_grant()["refresh_token"]

    second = client.refresh(first)["refresh_token"]
    retried = client.refresh(first)["refresh_token"]
    third = client.refresh(second)["refresh_token"]
    skipped = client.try_refresh(first)
    fourth = client.refresh(third)["refresh_token"]

    assert second == retried
    assert 4 == len({first, second, third, fourth})
    # Case 12: a generation was skipped within the window; refused, and the family lives.
    assert (400, "invalid_grant") == (skipped.status, skipped.json["error"])


def test_ACC_5_a_revoked_token_fails_at_once_and_a_foreign_client_gets_nothing(demo):
    """
    "Blacklist" and "one client only" of the article: revocation, introspection, another's Basic.
    """
    made = demo.program.json(
        *("clients", "create", "watch", "--grant", "refresh_token", "--api", "demo"),
        "--may-introspect",
    )
    watch = basic("watch", made["secret"])
    client = demo.client()
    tokens = client.password_grant()
    kept = client.password_grant()

    def active(token):
        return client.post("/oauth/introspect", {"token": token}, watch).json.get(
            "active"
        )

    assert eventually(lambda: active(tokens["access_token"]), 2) is True
    foreign = client.try_refresh(tokens["refresh_token"], watch)
    not_theirs = client.post("/oauth/revoke", {"token": tokens["refresh_token"]}, watch)
    assert (400, "invalid_grant") == (foreign.status, foreign.json["error"])
    assert 400 <= not_theirs.status < 500
    tokens = client.refresh(tokens["refresh_token"])

    revoked = client.post(
        "/oauth/revoke", {"token": tokens["refresh_token"]}, TESTCLIENT
    )
    after = client.try_refresh(tokens["refresh_token"])

    assert (200, b"") == (revoked.status, revoked.body)
    assert (400, "invalid_grant") == (after.status, after.json["error"])
    assert active(tokens["access_token"]) is False
    assert active(kept["access_token"]) is True
    assert client.refresh(kept["refresh_token"])


# --- with a look at the store, and a clock of its own ---------------------------------------


def test_ACC_3_only_the_token_endpoint_asks_the_store(tmp_path):
    """
    Steps 1 to 4 with rotations between them: the resource calls nothing, a refresh reads once and
    writes once.
    """

    async def steps(w):
        keys = w.installation.keys
        keys._wait = lambda instant: _pass(w.clock, instant)
        counts = []

        async def counted(work):
            w.spy.clear()
            answer = await work
            counts.append([call.name for call in w.spy.calls])
            return answer

        async def rotate():
            await keys.rotate(
                "default",
                KeyUse.SIGNING,
                now_flag=True,
                emergency=True,
                cause=Cause("t"),
            )
            await w.installation.poll()

        one = await w.sign_in()
        await rotate()
        # The first token of a key takes room in the ledger, a minute ahead.
        await w.sign_in()
        url = f"/secret?access_token={one['access_token']}"
        two = await counted(w.get(url))
        await rotate()
        w.clock.advance(timedelta(seconds=LIFE))
        three = await counted(w.get(url))
        await rotate()
        await w.sign_in()
        four = await counted(w.refresh(one["refresh_token"]))
        five = await counted(w.get(f"/secret?access_token={four.json['access_token']}"))
        return [each.status for each in (two, three, four, five)], counts

    statuses, counts = run(tmp_path, steps)

    assert [200, 401, 200, 200] == statuses
    assert [[], [], ["load_many", "commit"], []] == counts


async def _pass(clock, instant):
    clock.set(max(instant, clock.now()) + timedelta(milliseconds=1))


@pytest.mark.parametrize("pause", [timedelta(days=5), timedelta(days=13)])
def test_ACC_5_a_session_slides_while_it_is_used(tmp_path, pause):
    """
    "Slides": no expiry with use, up to the absolute end of 365 days.
    """

    async def use(w):
        token = (await w.sign_in())["refresh_token"]
        begun = w.clock.now()
        while True:
            w.clock.advance(pause)
            answer = await w.refresh(token)
            if answer.status != 200:
                return w.clock.now() - begun, answer.json["error"]
            token = answer.json["refresh_token"]

    lasted, error = run(tmp_path, use)

    assert "invalid_grant" == error
    assert timedelta(days=365) <= lasted < timedelta(days=365) + pause


@pytest.mark.parametrize(
    ("pause", "status"),
    [(timedelta(days=14, seconds=-1), 200), (timedelta(days=14), 400)],
)
def test_ACC_5_a_session_that_is_not_used_ends(tmp_path, pause, status):
    """
    "Slides": 14 days without use end it, a second before they do not.
    """

    async def rest(w):
        token = (await w.sign_in())["refresh_token"]
        token = (await w.refresh(token)).json["refresh_token"]
        w.clock.advance(pause)
        return await w.refresh(token)

    answer = run(tmp_path, rest)

    assert status == answer.status


def test_ACC_4_a_family_ends_when_a_used_token_returns_after_the_window(tmp_path):
    """
    B5: the successor was used and the window has passed: the whole family is revoked.
    """

    async def theft(w):
        first = (await w.sign_in())["refresh_token"]
        second = (await w.refresh(first)).json["refresh_token"]
        third = (await w.refresh(second)).json["refresh_token"]
        w.clock.advance(timedelta(seconds=31))
        return (await w.refresh(first), await w.refresh(third)), [
            event.name for event in w.recorder.events
        ]

    answers, events = run(tmp_path, theft)

    assert [400, 400] == [answer.status for answer in answers]
    assert 1 == events.count("refresh.reuse_detected")
