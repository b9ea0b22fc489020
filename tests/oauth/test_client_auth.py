"""
Client authentication: TOK-6, TOK-7, TOK-8, TOK-16, and the attacks T8 and T9.
"""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from urllib.parse import quote

import msgspec
import pytest

from kagimori.errors import OAuthError, StoreError
from kagimori.oauth.client import CLIENTS, AuthMethod
from kagimori.oauth.secrets import choose_secret, generate_secret
from tests.oauth.world import ADDRESS, basic

GRANT = {"grant_type": "client_credentials"}
AWKWARD = "id: a+b%41 é鍵"


def refused(world, request):
    """
    Return the error that a token request is answered with.
    """

    async def story():
        with pytest.raises(OAuthError) as caught:
            await world.services.token.token(request)
        return caught.value

    return asyncio.run(story())


@pytest.fixture
def started(world):
    asyncio.run(world.start())
    return world


@pytest.mark.parametrize("client", ["machine", "poster", "signer"])
def test_TOK8_each_confidential_client_passes_with_its_own_method(started, client):
    """
    What a client is registered with is taken.
    """
    assert asyncio.run(started.token(client)).access_token


def other_methods(world):
    secret = world.secrets
    return {
        "basic client by post": world.request(
            {**GRANT, "client_id": "machine", "client_secret": secret["machine"]}
        ),
        "post client by basic": world.request(GRANT, basic("poster", secret["poster"])),
        "basic client by id alone": world.request({**GRANT, "client_id": "machine"}),
        "key client by a secret": world.request(GRANT, basic("signer", "anything")),
        "public client by a secret": world.request(
            {**GRANT, "client_id": "spa", "client_secret": "anything"}
        ),
        "public client by basic": world.request(GRANT, basic("spa", "anything")),
        "secret client by an assertion": world.request(
            {**GRANT, **world.asserted(iss="machine", sub="machine")}
        ),
        "nothing": world.request(GRANT),
        "unknown by basic": world.request(GRANT, basic("nobody", "anything")),
        "unknown by post": world.request(
            {**GRANT, "client_id": "nobody", "client_secret": "anything"}
        ),
        "unknown by id alone": world.request({**GRANT, "client_id": "nobody"}),
        "wrong secret": world.request(GRANT, basic("machine", "wrong")),
        "empty secret": world.request(GRANT, basic("machine", "")),
        "no client id": world.request(GRANT, basic("", secret["machine"])),
        "another client's secret": world.request(
            GRANT, basic("machine", secret["web"])
        ),
        "endless client id": world.request({**GRANT, "client_id": "x" * 50_000}),
    }


CASES = [
    "basic client by post",
    "post client by basic",
    "basic client by id alone",
    "key client by a secret",
    "public client by a secret",
    "public client by basic",
    "secret client by an assertion",
    "nothing",
    "unknown by basic",
    "unknown by post",
    "unknown by id alone",
    "wrong secret",
    "empty secret",
    "no client id",
    "another client's secret",
    "endless client id",
]


@pytest.mark.parametrize("case", CASES)
def test_TOK6_TOK8_T8_any_other_method_or_secret_is_invalid_client(started, case):
    """
    The registered method only; every refusal is the same 401 with a challenge.
    """
    error = refused(started, other_methods(started)[case])

    assert ("invalid_client", 401) == (error.error, error.status)
    assert error.challenge.startswith("Basic realm=")
    assert "Client authentication failed." == error.description


def test_the_table_of_other_methods_is_whole(started):
    """
    Every case of the table is run.
    """
    assert CASES == list(other_methods(started))


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic bWFjaGluZQ==",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b"a%FF:x").decode(),
        "Bearer abc",
        "Digest username=machine",
        "",
        "Basic " + "A" * 100_000,
    ],
)
def test_TOK6_a_malformed_header_is_invalid_client(started, header):
    """
    Whatever stands in the header, the answer is 401 with a challenge, never a fault.
    """
    error = refused(started, started.request(GRANT, header))

    assert ("invalid_client", 401) == (error.error, error.status)
    assert error.challenge


@pytest.mark.parametrize("first", ["basic", "post", "assertion"])
@pytest.mark.parametrize("second", ["basic", "post", "assertion"])
def test_TOK6_two_methods_are_an_invalid_request(started, first, second):
    """
    Two methods at once are refused even where each would pass; one of them passes.
    """
    if first == second:
        assert asyncio.run(started.token("machine")).access_token
        return
    forms = {
        "basic": {},
        "post": {"client_id": "poster", "client_secret": started.secrets["poster"]},
        "assertion": started.asserted(),
    }
    header = basic("machine", started.secrets["machine"])
    error = refused(
        started,
        started.request(
            {**GRANT, **forms[first], **forms[second]},
            header if "basic" in (first, second) else None,
        ),
    )

    assert ("invalid_request", 400) == (error.error, error.status)


@pytest.mark.parametrize(
    ("named", "error"), [("machine", None), ("web", "invalid_request")]
)
def test_TOK8_a_client_id_beside_the_credentials_must_agree(started, named, error):
    """
    A client_id in the body is no second method, but must be the client's own.
    """
    request = started.shown("machine", {**GRANT, "client_id": named})

    if error is None:
        assert asyncio.run(started.services.token.token(request)).access_token
    else:
        assert error == refused(started, request).error


@pytest.mark.parametrize("id_", ["a:b", "a+b", "a%b", "a b", "é鍵", AWKWARD])
@pytest.mark.parametrize(
    "secret", ["s:t-" * 8, "s+t-" * 8, "s%41t-" * 8, "s t-" * 8, "é鍵-" * 8]
)
def test_TOK7_basic_is_form_urlencoded_before_base64(started, id_, secret):
    """
    Ids and secrets of any characters pass when they are encoded as RFC 6749 wants.
    """

    async def story():
        client = await started.client(
            id_, grants=("client_credentials",), resources=("api",)
        )
        stored = await choose_secret(
            started.pool, secret, started.now, allow_known_secrets=True
        )
        await started.put(
            CLIENTS, id_, msgspec.structs.replace(client, secrets=(stored,))
        )
        return await started.services.token.token(
            started.request(GRANT, basic(id_, secret))
        )

    assert asyncio.run(story()).access_token


def test_TOK7_percent_encoded_is_the_same_as_plus_encoded(started):
    """
    A space may come as ``+`` or ``%20``: both are form-urlencoded.
    """

    async def story():
        client = await started.client(
            "a b", grants=("client_credentials",), resources=("api",)
        )
        pair = f"{quote('a b')}:{quote(started.secrets['a b'])}"
        header = "bAsIc " + base64.b64encode(pair.encode()).decode()
        answer = await started.services.token.token(started.request(GRANT, header))
        return client, answer

    _, answer = asyncio.run(story())

    assert answer.access_token


def test_a_secret_rotates_without_a_gap(started):
    """
    A new secret works beside the old one, and the old one ends at its expiry.
    """

    async def story():
        old = started.secrets["machine"]
        new = generate_secret(started.now)
        end = started.now + timedelta(hours=1)
        found = await CLIENTS.get(started.memory, "default", "machine")
        (first,) = found.value.secrets
        await started.change(
            CLIENTS,
            "machine",
            secrets=(msgspec.structs.replace(first, expires=end), new.stored),
        )

        async def attempt(secret):
            return await started.services.token.token(
                started.request(GRANT, basic("machine", secret))
            )

        both = [await attempt(old), await attempt(new.text)]
        started.clock.set(end)
        with pytest.raises(OAuthError):
            await attempt(old)
        return [*both, await attempt(new.text)], new

    answers, new = asyncio.run(story())

    assert 3 == len(answers)
    assert new.text not in repr(new)
    assert new.stored.digest not in repr(new.stored)


def test_a_withdrawn_secret_ends_at_once(started):
    """
    What was remembered of a secret goes with the client's document.
    """

    async def story():
        assert await started.token("machine")
        await started.change(CLIENTS, "machine", secrets=())
        with pytest.raises(OAuthError) as caught:
            await started.token("machine")
        return caught.value

    assert "invalid_client" == asyncio.run(story()).error


def test_TOK16_ten_wrong_secrets_then_429_but_never_for_the_good_one(started):
    """
    The eleventh failure is 429 with Retry-After; the client's own requests go on.
    """

    async def story():
        assert await started.token("machine")
        wrong = started.request(GRANT, basic("machine", "wrong"))
        seen = []
        for _ in range(12):
            with pytest.raises(OAuthError) as caught:
                await started.services.token.token(wrong)
            seen.append((caught.value.status, caught.value.retry_after))
        assert await started.token("machine")
        return seen

    assert [(401, None)] * 10 + [(429, 60)] * 2 == asyncio.run(story())


def test_TOK16_unknown_clients_are_throttled_alike(started):
    """
    The same limit holds for a client that does not exist: 429 tells nothing.
    """

    async def story():
        request = started.request(GRANT, basic("nobody", "wrong"))
        statuses = []
        for _ in range(11):
            with pytest.raises(OAuthError) as caught:
                await started.services.token.token(request)
            statuses.append(caught.value.status)
        return statuses

    assert [401] * 10 + [429] == asyncio.run(story())


def test_TOK16_only_failures_count(started):
    """
    A thousand good requests from one address wait for nothing.
    """

    async def story():
        for _ in range(300):
            assert await started.token("machine")

    asyncio.run(story())

    assert "client_auth.failed" not in started.events.names()


def test_a_refusal_is_told_without_the_secret(started):
    """
    The event names client, method and reason, cut to length, and no secret.
    """
    secret = "a-secret-that-must-not-show"
    refused(started, started.request(GRANT, basic("x" * 500, secret)))

    (event,) = [each for each in started.events if each.name == "client_auth.failed"]
    assert ADDRESS == event.fields["address"]
    assert "x" * 128 == event.fields["client"]
    assert secret not in str(event)


def test_a_busy_pool_answers_503(started):
    """
    When no more hashes are taken on, the answer is 503 with Retry-After (A15).
    """
    started.pool.close()
    error = refused(started, started.request(GRANT, basic("machine", "wrong")))

    assert ("temporarily_unavailable", 503, 1) == (
        error.error,
        error.status,
        error.retry_after,
    )


@pytest.mark.parametrize(
    ("transient", "status", "error"),
    [(True, 503, "temporarily_unavailable"), (False, 500, "server_error")],
)
def test_a_store_that_fails_is_not_blamed_on_the_client(
    started, transient, status, error
):
    """
    A store that does not answer is 503, a damaged one 500; neither is a 4xx.
    """

    async def fail(*_):
        raise StoreError("no answer", transient=transient)

    started.directory.invalidate()
    started.memory.load_many = fail
    found = refused(started, started.shown("machine", GRANT))

    assert (status, error) == (found.status, found.error)


def test_requests_show_nothing_of_what_they_hold(started):
    """
    The repr of a request has neither its parameters nor its header.
    """
    request = started.shown("poster", GRANT)

    assert started.secrets["poster"] not in repr(request)
    assert AuthMethod.POST.value not in repr(request)
