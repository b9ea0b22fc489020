"""
The token endpoint over HTTP: methods, bodies, errors, headers (TOK-1 to TOK-6, TOK-15, TOK-16).
"""

from __future__ import annotations

import asyncio
import json

import pytest

from kagimori.settings import Limits
from tests.http.world import MACHINE, PASSWORD, TESTCLIENT, claims, world

GOOD = {"grant_type": "client_credentials", "scope": "api"}


def run(tmp_path, work, **settings):
    async def scene():
        async with world(tmp_path, **settings) as made:
            return await work(made)

    return asyncio.run(scene())


def test_TOK_4_a_success_has_the_members_and_headers_of_the_specification(tmp_path):
    """
    200, JSON, never cached, with an id; the scope is always sent.
    """
    answer = run(
        tmp_path, lambda w: w.post("/oauth/token", GOOD, authorization=MACHINE)
    )

    assert 200 == answer.status
    assert "application/json" == answer.headers["content-type"]
    assert "no-store" == answer.headers["cache-control"]
    assert "no-cache" == answer.headers["pragma"]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert answer.headers["x-request-id"]
    assert ["token_type", "access_token", "expires_in", "scope"] == list(answer.json)
    assert ("Bearer", 600, "api") == (
        answer.json["token_type"],
        answer.json["expires_in"],
        answer.json["scope"],
    )
    assert str(len(answer.body)) == answer.headers["content-length"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/introspect"])
def test_ACC_1_TOK_1_other_methods_get_405_with_allow(tmp_path, method, path):
    """
    Only POST; the answer says so and is an invalid_request.
    """
    answer = run(tmp_path, lambda w: w.send(method, path))

    assert 405 == answer.status
    assert "POST, OPTIONS" == answer.headers["allow"]
    assert "invalid_request" == answer.json["error"]
    assert "no-store" == answer.headers["cache-control"]


BAD = {
    "json": (b'{"grant_type":"client_credentials"}', "application/json"),
    "no content type": (b"grant_type=client_credentials", None),
    "multipart": (b"--x", "multipart/form-data; boundary=x"),
    "latin-1": (
        b"grant_type=client_credentials",
        "application/x-www-form-urlencoded; charset=latin-1",
    ),
    "repeated": (b"grant_type=client_credentials&grant_type=client_credentials", ""),
    "repeated scope": (b"grant_type=client_credentials&scope=api&scope=api", ""),
    "not UTF-8": (b"grant_type=%ff", ""),
    "broken percent": (b"grant_type=%2", ""),
    "NUL": (b"grant_type=client_credentials%00", ""),
    "too many": (b"&".join(b"a%d=1" % n for n in range(101)), ""),
    "no grant type": (b"scope=api", ""),
    "empty grant type": (b"grant_type=&scope=api", ""),
    "empty body": (b"", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_TOK_1_TOK_2_what_is_no_plain_form_is_an_invalid_request(tmp_path, name):
    """
    Every malformed body gets 400 invalid_request.
    """
    body, type_ = BAD[name]
    type_ = "application/x-www-form-urlencoded" if type_ == "" else type_
    headers = [("authorization", MACHINE)]
    if type_ is not None:
        headers.append(("content-type", type_))

    answer = run(
        tmp_path, lambda w: w.send("POST", "/oauth/token", body=body, headers=headers)
    )

    assert (400, "invalid_request") == (answer.status, answer.json["error"])
    assert ["error", "error_description"] == list(answer.json)
    description = answer.json["error_description"]
    assert description.isascii()
    assert not set('"\\') & set(description)
    assert "no-store" == answer.headers["cache-control"]


def test_TOK_2_unknown_parameters_are_ignored(tmp_path):
    """
    A parameter that nobody knows changes nothing.
    """
    form = {**GOOD, "wind": "north", "empty": ""}

    answer = run(
        tmp_path, lambda w: w.post("/oauth/token", form, authorization=MACHINE)
    )

    assert 200 == answer.status


@pytest.mark.parametrize(
    "query",
    [
        "client_id=machine",
        "client_secret=secret",
        "access_token=x",
        "PASSWORD=%70&password=x",
    ],
)
def test_TOK_3_credentials_in_the_query_string_are_refused(tmp_path, query):
    """
    The same request is fine without them.
    """

    async def both(w):
        bad = await w.post(f"/oauth/token?{query}", GOOD, authorization=MACHINE)
        good = await w.post("/oauth/token?lang=ja", GOOD, authorization=MACHINE)
        return bad, good

    bad, good = run(tmp_path, both)

    assert (400, "invalid_request") == (bad.status, bad.json["error"])
    assert 200 == good.status


def test_S1_a_body_that_is_too_large_gets_413(tmp_path):
    """
    By its announced length, by its true length, in one part or in many.
    """
    limits = Limits(body_bytes=2048)
    padding = b"grant_type=client_credentials&x=" + b"y" * 2048
    type_ = ("content-type", "application/x-www-form-urlencoded")
    auth = ("authorization", MACHINE)

    async def all_(w):
        announced = await w.send(
            "POST", "/oauth/token", headers=[type_, auth, ("content-length", "9" * 40)]
        )
        whole = await w.post("/oauth/token", padding, authorization=MACHINE)
        parts = await w.send(
            "POST",
            "/oauth/token",
            body=[padding[n : n + 100] for n in range(0, len(padding), 100)],
            headers=[type_, auth],
        )
        good = await w.send(
            "POST",
            "/oauth/token",
            body=[b"grant_type=client_", b"credentials"],
            headers=[type_, auth],
        )
        return announced, whole, parts, good

    *bad, good = run(tmp_path, all_, limits=limits)

    assert [(413, "invalid_request")] * 3 == [(a.status, a.json["error"]) for a in bad]
    assert 200 == good.status


def test_a_peer_that_leaves_gets_no_answer(tmp_path):
    """
    Nothing is sent, nothing is logged as broken.
    """
    gone = run(
        tmp_path,
        lambda w: w.send(
            "POST",
            "/oauth/token",
            body=[],
            headers=[("content-type", "application/x-www-form-urlencoded")],
        ),
    )

    assert gone is None


def test_TOK_6_a_wrong_client_gets_401_with_a_challenge(tmp_path):
    """
    Wrong secret, unknown client, no client: 401 with Basic; two methods: invalid_request.
    """

    async def all_(w):
        wrong = "Basic " + "bWFjaGluZTp3cm9uZw=="
        return [
            await w.post("/oauth/token", GOOD, authorization=wrong),
            await w.post("/oauth/token", GOOD, authorization="Bearer abc"),
            await w.post("/oauth/token", GOOD),
            await w.post(
                "/oauth/token",
                {**GOOD, "client_id": "machine", "client_secret": "secret"},
                authorization=MACHINE,
            ),
        ]

    *refused, two = run(tmp_path, all_)

    for answer in refused:
        assert (401, "invalid_client") == (answer.status, answer.json["error"])
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        assert "no-store" == answer.headers["cache-control"]
    assert (400, "invalid_request") == (two.status, two.json["error"])


def test_A10_a_repeated_header_is_refused(tmp_path):
    """
    Two Authorization or Content-Type fields are ambiguous.
    """

    async def all_(w):
        return [
            await w.post(
                "/oauth/token",
                GOOD,
                authorization=MACHINE,
                headers=[("authorization", TESTCLIENT)],
            ),
            await w.post(
                "/oauth/token",
                GOOD,
                authorization=MACHINE,
                headers=[("content-type", "text/plain")],
            ),
            await w.post(
                "/oauth/token",
                GOOD,
                authorization=MACHINE,
                headers=[("accept", "a/b"), ("accept", "c/d")],
            ),
        ]

    first, second, accepted = run(tmp_path, all_)

    assert [400, 400, 200] == [first.status, second.status, accepted.status]


def test_TOK_15_browsers_of_registered_origins_may_read_the_answer(tmp_path):
    """
    A preflight is granted; the answer opens to the client's own origins only.
    """

    async def all_(w):
        await w.installation.store.commit("default", await _with_origin(w))
        await w.installation.poll()
        mine = [("origin", "https://app.example")]
        other = [("origin", "https://evil.example")]
        return (
            await w.send("OPTIONS", "/oauth/token", headers=other),
            await w.post("/oauth/token", GOOD, authorization=MACHINE, headers=mine),
            await w.post("/oauth/token", GOOD, authorization=MACHINE, headers=other),
            await w.post("/oauth/token", GOOD, authorization=MACHINE),
            await w.post("/oauth/token", GOOD, authorization="Basic !", headers=mine),
        )

    preflight, mine, other, none, broken = run(tmp_path, all_)

    assert 204 == preflight.status
    assert "POST" == preflight.headers["access-control-allow-methods"]
    assert "https://app.example" == mine.headers["access-control-allow-origin"]
    assert "Origin" == mine.headers["vary"]
    assert 200 == mine.status == other.status == none.status
    for answer in (other, none, broken):
        assert "access-control-allow-origin" not in answer.headers


async def _with_origin(w):
    import msgspec

    from kagimori.oauth.client import CLIENTS

    found = await CLIENTS.get(w.spy, "default", "machine")
    changed = msgspec.structs.replace(found.value, origins=("https://app.example",))
    changed.validate()
    return [CLIENTS.put("machine", changed, found.version)]


def test_every_answer_has_an_id_of_its_own_and_believes_no_other(tmp_path):
    """
    Ids are ours and unique; one that comes in is not repeated.
    """

    async def some(w):
        return [
            await w.get("/nowhere", headers=[("x-request-id", "mine")])
            for _ in range(20)
        ]

    ids = [answer.headers["x-request-id"] for answer in run(tmp_path, some)]

    assert 20 == len(set(ids))
    assert "mine" not in ids


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/oauth/token/",
        "/OAUTH/TOKEN",
        "//oauth/token",
        "/metrics",
        "/oauth%2ftoken",
    ],
)
def test_a_path_that_is_not_there_gets_404_as_json(tmp_path, path):
    """
    No redirect, no page: JSON with an id; figures are not on this listener.
    """
    answer = run(tmp_path, lambda w: w.get(path))

    assert 404 == answer.status
    assert "not_found" == answer.json["error"]
    assert "no-store" == answer.headers["cache-control"]


def test_A17_the_issuer_never_comes_from_the_host(tmp_path):
    """
    Another name of this machine changes nothing in a token; forwarded hosts neither.
    """

    async def some(w):
        answer = await w.post(
            "/oauth/token",
            GOOD,
            authorization=MACHINE,
            host="127.0.0.1:9",
            headers=[
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "https"),
                ("forwarded", "host=evil.example"),
            ],
        )
        refused = await w.post(
            "/oauth/token", GOOD, authorization=MACHINE, host="evil.example"
        )
        return answer, refused

    answer, refused = run(tmp_path, some)

    assert "http://localhost:3000" == claims(answer.json["access_token"])["iss"]
    assert (400, "invalid_request") == (refused.status, refused.json["error"])


def test_TOK_16_limits_count_by_the_address_behind_a_trusted_proxy(tmp_path):
    """
    The forwarded address counts where the proxy is trusted, and only the part it vouches for.
    """
    from kagimori.settings import ServerSettings

    async def addresses(w):
        wrong = "Basic bWFjaGluZTp3cm9uZw=="
        for forwarded in (
            "198.51.100.7",
            "6.6.6.6, 198.51.100.8",
            "198.51.100.9, 127.0.0.2",
        ):
            await w.post(
                "/oauth/token",
                GOOD,
                authorization=wrong,
                headers=[("x-forwarded-for", forwarded)],
            )
        return [
            event.fields["address"] for event in w.recorder.named("client_auth.failed")
        ]

    trusting = ServerSettings(trusted_proxies=("127.0.0.0/8",))

    assert ["198.51.100.7", "198.51.100.8", "198.51.100.9"] == run(
        tmp_path, addresses, server=trusting
    )
    assert ["127.0.0.1"] * 3 == run(tmp_path, addresses)


def test_S6_an_unforeseen_fault_is_a_500_that_says_nothing(
    tmp_path, monkeypatch, stream
):
    """
    The answer holds an id; the log has the place and the class, and neither holds the secret.
    """

    async def broken(w):
        async def fails(request):
            raise ValueError("the password is hunter2")

        monkeypatch.setattr(w.installation.oauth.token, "token", fails)
        return await w.post("/oauth/token", PASSWORD, authorization=TESTCLIENT)

    answer = run(tmp_path, broken)

    assert 500 == answer.status
    assert "server_error" == answer.json["error"]
    assert answer.headers["x-request-id"] in answer.json["error_description"]
    assert "hunter2" not in answer.body.decode()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (line,) = [each for each in lines if each["event"] == "request.broken"]
    assert "ValueError" == line["exception"]
    assert answer.headers["x-request-id"] == line["request_id"]
    assert "hunter2" not in stream.getvalue()


def test_REV_5_a_store_that_does_not_answer_is_503_with_retry_after(
    tmp_path, monkeypatch
):
    """
    A transient failure keeps clients from dropping good tokens; a lasting one is our fault.
    """
    from kagimori.errors import StoreError

    async def failing(w):
        token = (await w.sign_in())["refresh_token"]
        answers = []
        for transient in (True, False):

            async def fails(tenant, keys, transient=transient):
                raise StoreError("no answer", transient=transient)

            monkeypatch.setattr(w.spy, "load_many", fails)
            answers.append(await w.refresh(token))
        monkeypatch.undo()
        return *answers, await w.refresh(token)

    passing, lasting, after = run(tmp_path, failing)

    assert (503, "temporarily_unavailable") == (passing.status, passing.json["error"])
    assert int(passing.headers["retry-after"]) >= 1
    assert (500, "server_error") == (lasting.status, lasting.json["error"])
    assert 200 == after.status
