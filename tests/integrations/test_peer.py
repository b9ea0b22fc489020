"""
The endpoint by which slots prove what they can read.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest

import kagimori
from kagimori.crypto.digests import b64url_decode, b64url_encode
from kagimori.errors import ConfigError, StoreError
from kagimori.integrations.peer import PURPOSE, TOKEN, Peer
from kagimori.testing.clock import FixedClock
from tests.integrations.browser import Browser, through_asgi
from tests.integrations.revoking import revoke
from tests.integrations.sites import SITES, question
from tests.integrations.sites import TOKEN as WORD

BEARER = f"Bearer {WORD}"
CHALLENGE = b64url_encode(b"c" * 64)
QUESTION = question(CHALLENGE)


@pytest.fixture
def peer(world):
    return Peer(world.ring(), token=WORD, clock=world.clock)


def ask(peer: Peer, *texts: str, challenge: str = CHALLENGE):
    found = peer.answer("POST", BEARER, question(challenge, *texts))
    assert found.status == 200, found
    return json.loads(found.body)


def test_two_slots_prove_that_each_reads_the_other(world):
    """
    What blue protected green opens, and the reverse, also after a rotation on one of them.
    """
    rings = [world.ring(), world.ring()]
    blue, green = (Peer(ring, token=WORD, clock=world.clock) for ring in rings)
    rings[1].rotate(immediate=True)

    first, second = ask(blue), ask(green)
    crossed = ask(blue, second["protected"]), ask(green, first["protected"])

    for said in crossed:
        assert [{"ok": True, "payload": CHALLENGE, "why": None}] == said["opened"]


def test_report_tells_what_slots_can_differ_in(world, peer):
    """
    Application, ring, wrapper, keys, clock and release are told; names only as their digests.
    """
    ring = world.ring()

    said = ask(peer)

    assert set(said) == {
        *("protected", "opened", "now", "application"),
        *("ring", "wrapper", "keys", "version"),
    }
    assert said["application"] == hashlib.sha256(b"shop").hexdigest()
    assert said["ring"] == hashlib.sha256(ring.location_name.encode()).hexdigest()
    assert said["wrapper"] == ring.wrapper_name
    assert said["now"] == world.clock.now().isoformat()
    assert said["version"] == kagimori.__version__
    (key,) = said["keys"]
    assert key == {
        "id": ring.current_key_id,
        "algorithm": "AES_256_GCM",
        "state": "current",
    }


def test_report_says_why_a_payload_does_not_open(tmp_path, world):
    """
    Unknown key, other purpose or application, and revoked are told apart.
    """
    ring = world.ring()
    peer = Peer(ring, token=WORD, clock=world.clock)
    elsewhere = type(world)(tmp_path / "other", world.clock).ring()
    old, mine = ring.current_key_id, ask(peer)["protected"]
    foreign = elsewhere.protector(PURPOSE).protect(b"x")
    other_use = ring.protector("invoices").protect(b"x")
    ring.rotate(immediate=True)
    revoke(world, old)
    ring.refresh()

    said = ask(peer, foreign, other_use, mine, "nonsense")

    reasons = [each["why"] for each in said["opened"]]
    assert ["unknown-key", "revoked", "revoked", "not-ours"] == reasons
    fresh = ring.protector("invoices").protect(b"x")
    assert ask(peer, fresh)["opened"][0]["why"] == "not-ours"


@pytest.mark.parametrize(
    ("method", "bearer", "body", "status"),
    [
        ("POST", BEARER, question(CHALLENGE), 200),
        ("GET", BEARER, question(CHALLENGE), 405),
        ("POST", None, question(CHALLENGE), 401),
        ("POST", "Bearer " + "x" * 43, question(CHALLENGE), 401),
        ("POST", f"Basic {WORD}", question(CHALLENGE), 401),
        ("POST", BEARER, b"", 400),
        ("POST", BEARER, b"[]", 400),
        ("POST", BEARER, b'{"challenge": 1}', 400),
        ("POST", BEARER, question(""), 400),
        ("POST", BEARER, question("AA=="), 400),
        ("POST", BEARER, question(b64url_encode(b"c" * 65)), 400),
        ("POST", BEARER, question("AAAA", *["x"] * 5), 400),
        ("POST", BEARER, question("AAAA", *["x"] * 4), 200),
        ("POST", BEARER, question("AAAA", "x" * 3000), 400),
        ("POST", BEARER, b" " * 20_000, 413),
    ],
)
def test_only_a_good_question_of_the_bearer_is_answered(
    peer, method, bearer, body, status
):
    """
    Another method, token, shape or size is refused, and nothing is stored by caches.
    """
    answer = peer.answer(method, bearer, body)

    assert answer.status == status
    assert answer.headers["Cache-Control"] == "no-store"


def test_ten_requests_a_minute_are_answered(world, peer):
    """
    The eleventh waits for as long as it is told; strangers use none of them up.
    """
    for _ in range(30):
        assert peer.answer("POST", "Bearer x", question(CHALLENGE)).status == 401
    for _ in range(10):
        ask(peer)
        world.clock.advance(timedelta(seconds=1))

    refused = peer.answer("POST", BEARER, question(CHALLENGE))
    world.clock.advance(timedelta(seconds=int(refused.headers["Retry-After"])))

    assert refused.status == 429
    assert ask(peer)["opened"] == []


def test_larger_payload_is_not_handed_out(world, peer):
    """
    What is longer than a challenge stays inside although it opens.
    """
    protector = world.ring().protector(PURPOSE)

    said = ask(peer, protector.protect(b"x" * 64), protector.protect(b"x" * 65))

    assert [True, False] == [each["ok"] for each in said["opened"]]
    assert len(b64url_decode(said["opened"][0]["payload"])) == 64


def test_endpoint_is_off_without_a_token(world, monkeypatch):
    """
    Without the variable the address does not exist; with it, it does.
    """
    monkeypatch.delenv(TOKEN, raising=False)
    off = Peer(world.ring())
    monkeypatch.setenv(TOKEN, WORD)
    on = Peer(world.ring())

    assert off.answer("POST", BEARER, question(CHALLENGE)).status == 404
    assert off.answer("POST", "Bearer ", question(CHALLENGE)).status == 404
    assert on.answer("POST", BEARER, question(CHALLENGE)).status == 200


def test_short_token_is_refused_at_start(world):
    """
    A token below 256 bits is a fault of the settings, and is not quoted.
    """
    with pytest.raises(ConfigError) as caught:
        Peer(world.ring(), token="short-secret")

    assert "short-secret" not in str(caught.value)


def test_outage_answers_503(world):
    """
    A slot whose store is down says so, and does not call the other's payload foreign.
    """
    blue, green = world.ring(), world.ring()
    blue.rotate(immediate=True)
    text = blue.protector(PURPOSE).protect(b"x")
    peer = Peer(green, token=WORD, clock=FixedClock())
    world.store.fault = StoreError("down", transient=True)

    answer = peer.answer("POST", BEARER, question(CHALLENGE, text))

    assert answer.status == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("name", list(SITES))
def test_every_integration_answers_there(world, name, monkeypatch):
    """
    The endpoint answers in each framework, before sessions and CSRF tokens are asked for.
    """
    monkeypatch.setenv(TOKEN, WORD)
    shop = SITES[name](world.ring())
    headers = [("Authorization", BEARER), ("Content-Type", "application/json")]

    def post(lines, body=QUESTION):
        path = "/.kagimori/peer"
        return Browser().ask(shop, path, method="POST", headers=lines, body=body)

    good = post(headers)

    assert good.status == 200
    assert good.json["application"] == hashlib.sha256(b"shop").hexdigest()
    assert good.get("Cache-Control") == "no-store"
    assert post([]).status == 401
    assert post(headers, b" " * 20_000).status == 413


@pytest.mark.parametrize("name", ["fastapi", "django"])
def test_no_integration_answers_there_by_default(world, name, monkeypatch):
    """
    Without the variable there is no endpoint.
    """
    monkeypatch.delenv(TOKEN, raising=False)
    shop = SITES[name](world.ring())

    answer = Browser().ask(
        shop, "/.kagimori/peer", method="POST", headers=[("Authorization", BEARER)]
    )

    assert answer.status == 404


def test_asgi_endpoint_leaves_other_paths_alone(world):
    """
    A path that looks alike is the application's; a mounted application has its own endpoint.
    """
    from tests.integrations.sites import starlette_app

    shop = through_asgi(starlette_app(world.ring()))

    def below(scope, receive, send):
        mounted = {"root_path": "/shop", "path": f"/shop{scope['path']}"}
        return starlette_app(world.ring())(scope | mounted, receive, send)

    headers = [("Authorization", BEARER)]
    mounted = Browser().ask(
        through_asgi(below), "/.kagimori/peer", method="POST", headers=headers
    )
    assert mounted.status == 400
    assert Browser().ask(shop, "/static").status == 200
    assert Browser().ask(shop, "/.kagimori/peers").status == 404
