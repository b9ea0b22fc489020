"""
Rotation while clients work: no verification ever fails.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from datetime import datetime

from kagimori.compose import opened
from kagimori.keys.journal import Cause
from kagimori.keys.timeline import KeyUse
from kagimori.settings import read_settings
from tests.e2e.server import (
    EMERGENCY,
    LOST,
    PASSWORD,
    TESTCLIENT,
    basic,
    claims,
    eventually,
    kid,
    verifier_of,
)

SOON = 1.0
"""Seconds in which a running server has taken in what a command did."""

SLACK = 1.5
"""Seconds more for a machine that is busy with other tests."""


class Users:
    """
    Clients that refresh and verify random older tokens until told to end.

    Attributes:
        failures: every answer that was not what it had to be.
        refreshed, verified: how often what succeeded.
        kids: the keys whose tokens were verified.
    """

    def __init__(self, server, count):
        self.server = server
        self.failures = []
        self.refreshed = self.verified = 0
        self.kids = set()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(number,))
            for number in range(count)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number):
        chance = random.Random(number)
        tokens = []
        try:
            with self.server.client() as client:
                refresh_token = client.password_grant()["refresh_token"]
                while not self._over.is_set():
                    answer = client.try_refresh(refresh_token)
                    if self._check("refresh", answer):
                        self.refreshed += 1
                        refresh_token = answer.json["refresh_token"]
                        # A token of 20 s is verified only while it must be good.
                        tokens.append(("/secret", answer.json["access_token"]))
                    tokens.append(("/api/secret", client.machine_token()))
                    for path, token in chance.sample(tokens, min(4, len(tokens))):
                        if claims(token)["exp"] > time.time() + 3:
                            shown = client.get(path, token)
                            if self._check(kid(token), shown):
                                self.verified += 1
                                self.kids.add(kid(token))
        except (AssertionError, *LOST) as error:
            self.failures.append(repr(error))

    def _check(self, what, answer):
        if answer.status == 200:
            return True
        with self._lock:
            self.failures.append(f"{what}: {answer}")
        return False


def signing(program, state, algorithm="ES256"):
    return [
        key
        for key in program.listed()
        if (key["algorithm"], key["state"]) == (algorithm, state)
    ]


def token_kid(client):
    """
    Return which key signs now.
    """
    return kid(client.machine_token())


def test_K1_fifty_rotations_in_a_row_break_no_token(demo):
    """
    Clients refresh and verify random older tokens all the while: 0 failures, of any key.
    """

    async def rotate_all():
        kids = []
        async with opened(read_settings(demo.data, {})) as installation:
            for _ in range(50):
                outcome = await installation.keys.rotate(
                    "default",
                    KeyUse.SIGNING,
                    now_flag=True,
                    emergency=True,
                    cause=Cause("e2e", "the fiftieth is as harmless as the first"),
                )
                kids.append(outcome.key.kid)
        return kids

    client = demo.client()
    oldest = client.machine_token()
    with Users(demo, 3) as users:
        made = asyncio.run(rotate_all())
        last = eventually(lambda: token_kid(client) == made[-1], SOON + SLACK)

    assert [] == users.failures
    assert last
    assert 50 == len(set(made))
    assert users.refreshed >= 50
    assert users.verified >= 100
    # Tokens of nearly every key were verified: none of the fifty was skipped over.
    assert len(users.kids & set(made)) >= 45
    assert 200 == client.api_secret(oldest).status
    assert {kid(oldest), *made} <= client.kids()
    assert verifier_of(demo, client.jwks()).verify(oldest)
    assert demo.program.current() == made[-1]


def test_K1_commands_take_effect_in_a_running_server_within_a_second(demo):
    """
    rotate, cancel, delete, revoke and a cookie key: no restart, and each within 1 s.
    """
    program, client = demo.program, demo.client()

    def soon(found):
        return eventually(found, SOON + SLACK)

    # rotate: at once, and the old key goes on verifying.
    old = client.machine_token()
    new = program.json(*EMERGENCY)["key"]["kid"]
    assert soon(lambda: token_kid(client) == new)
    assert 200 == client.api_secret(old).status

    # rotate without flags, and cancel: published, then gone, and the current key signs on.
    waiting = program.json("keys", "rotate", "signing")["key"]["kid"]
    assert soon(lambda: waiting in client.kids())
    assert new == token_kid(client)
    program.ok("keys", "cancel", "signing")
    assert soon(lambda: waiting not in client.kids())
    assert new == token_kid(client)

    # delete: refused while tokens live, obeyed with --force; then its tokens fail.
    said = program.fails(6, "keys", "delete", "signing", kid(old), "--yes")
    assert "--force" in said
    assert 200 == client.api_secret(old).status
    program.ok("keys", "delete", "signing", kid(old), "--force", "--yes")
    assert soon(lambda: client.api_secret(old).status == 401)
    assert kid(old) not in client.kids()

    # revoke: replaced at once; its tokens fail, the families live on.
    family = client.password_grant()
    compromised = client.machine_token()
    program.ok("keys", "revoke", "signing", kid(compromised), "--yes")
    assert soon(lambda: client.api_secret(compromised).status == 401)
    assert kid(compromised) not in client.kids()
    renewed = client.refresh(family["refresh_token"])
    assert 200 == client.secret(renewed["access_token"]).status
    assert kid(compromised) != kid(renewed["access_token"]) == program.current()
    states = {key["kid"]: key["state"] for key in program.listed()}
    assert "revoked" == states[kid(compromised)]


def test_K1_another_default_algorithm_takes_over_without_a_restart(demo):
    """
    --algorithm --default: tokens are signed with it, those of before verify.
    """
    client = demo.client()
    old = client.machine_token()

    demo.program.ok(*EMERGENCY, "--algorithm", "Ed25519", "--default")
    client.password_grant()

    metadata = client.get("/.well-known/openid-configuration").json
    listed = {key["algorithm"] for key in signing(demo.program, "current", "Ed25519")}
    assert {"Ed25519"} == listed
    assert 200 == client.api_secret(old).status
    assert "Ed25519" in str(metadata) or "EdDSA" in str(metadata)


def test_a_tenant_serves_tokens_and_keys_as_soon_as_it_is_made(demo):
    """
    Tenants create makes issuer and keys in one commit; disable closes it, enable opens it again.
    """
    program, client = demo.program, demo.client()
    path = "/t/acme"
    assert 404 == client.get(f"{path}/oidc/jwks").status

    program.ok("tenants", "create", "acme")
    of = ("--tenant", "acme")
    program.ok("apis", "create", "orders", "--identifier", "urn:acme:orders", *of)
    made = program.json(
        *("clients", "create", "robot", "--grant", "client_credentials"),
        *("--api", "orders", *of),
    )
    robot = basic("robot", made["secret"])
    form = {"grant_type": "client_credentials"}
    answer = eventually(
        lambda: _good(client.post(f"{path}/oauth/token", form, robot)), 3
    )
    token = answer.json["access_token"]

    assert f"{demo.issuer}{path}" == claims(token)["iss"]
    assert "urn:acme:orders" == claims(token)["aud"]
    assert kid(token) in client.kids(path)
    assert kid(token) not in client.kids()
    assert program.current(tenant="acme") == kid(token)
    metadata = client.get(f"{path}/.well-known/openid-configuration").json
    assert f"{demo.issuer}{path}/oidc/jwks" == metadata["jwks_uri"]
    # J7: keys and clients of one tenant mean nothing to another.
    assert 401 == client.api_secret(token).status
    assert 401 == client.post("/oauth/token", form, robot).status

    program.ok("tenants", "disable", "acme", "--yes")
    assert eventually(
        lambda: client.get(f"{path}/oidc/jwks").status == 404, SOON + SLACK
    )
    assert 200 != client.post(f"{path}/oauth/token", form, robot).status
    program.ok("tenants", "enable", "acme")
    assert eventually(
        lambda: client.get(f"{path}/oidc/jwks").status == 200, SOON + SLACK
    )
    assert client.ok(form, robot, path)

    program.ok("tenants", "delete", "acme", "--yes", "--force")
    assert eventually(
        lambda: client.get(f"{path}/oidc/jwks").status == 404, SOON + SLACK
    )
    assert client.machine_token()


def _good(answer):
    return answer if answer.status == 200 else None


def test_K13_a_gentle_rotation_publishes_before_it_signs_and_keeps_while_tokens_live(
    demo,
):
    """
    NEXT is in the JWKS a propagation before it signs; PREVIOUS leaves only after its last token.
    """
    client, program = demo.client(), demo.program
    # The key that turns signs tokens of 20 s only, so that its end can be waited for.
    old = client.password_grant()
    old_kid = kid(old["access_token"])
    next_ = program.json("keys", "rotate", "signing")["key"]
    assert eventually(lambda: next_["kid"] in client.kids(), SOON + SLACK)
    published = time.time()
    activates = datetime.fromisoformat(next_["activates"]).timestamp()
    longest = int(client.get("/oidc/jwks").headers["cache-control"].rpartition("=")[2])

    while True:
        tokens = client.ok(PASSWORD, TESTCLIENT)
        signed = kid(tokens["access_token"])
        if signed != old_kid:
            break
        old = tokens
        assert {old_kid, next_["kid"]} <= client.kids()
        assert time.time() < activates + SOON + SLACK
        time.sleep(0.1)
    switched = time.time()
    assert next_["kid"] == signed
    assert switched >= activates
    assert activates - published >= longest
    # The last token of the old key verifies to its last second, with the JWKS of that moment.
    last = claims(old["access_token"])["exp"]
    states = {key["kid"]: key for key in program.listed()}
    expires = datetime.fromisoformat(states[old_kid]["expires"]).timestamp()
    assert "previous" == states[old_kid]["state"]
    assert last < expires
    while (now := time.time()) < last - 0.3:
        assert 200 == client.secret(old["access_token"]).status, f"{last - now} s early"
        time.sleep(0.25)
    while (now := time.time()) < expires - 0.3:
        assert old_kid in client.kids(), f"{expires - now} s too early"
        time.sleep(0.25)
    assert eventually(lambda: old_kid not in client.kids(), 3)
    states = {key["kid"]: key["state"] for key in program.listed()}
    assert "retired" == states[old_kid]
    assert next_["kid"] in client.kids()
