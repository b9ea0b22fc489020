"""
The one choke point: grants times states, scopes, resources, and what a refresh may have.
"""

from __future__ import annotations

import asyncio

import pytest

from kagimori.errors import NotFoundError, OAuthError
from kagimori.oauth.client import CLIENTS
from kagimori.oauth.resource import RESOURCES
from kagimori.oauth.tenant import TENANTS
from tests.oauth.world import API, MAIL, OLD, claims_of

# How each grant is used: its client, its resource's id, and whether a user stands behind it.
GRANTS = {
    "client_credentials": ("machine", "api", False),
    "password": ("legacy", "old", True),
    "refresh_token": ("web", "api", True),
    "operator": ("web", "api", True),
}

STATES = [
    "tenant disabled",
    "client disabled",
    "grant taken away",
    "resource disabled",
    "resource taken away",
    "scope beyond the client",
    "scope malformed",
    "resource unknown",
    "user disabled",
    "user removed",
    "nothing wrong",
]


async def use(world, grant, refresh_token, **asked):
    if grant == "client_credentials":
        return await world.token("machine", **asked)
    if grant == "password":
        form = {"username": "alice", "password": "tin kettle 7 rooftop", **asked}
        return await world.token("legacy", "password", **form)
    if grant == "refresh_token":
        return await world.refresh("web", refresh_token, **asked)
    return await world.family(**asked)


async def disturb(world, grant, state):
    """
    Bring about a state; return what the request asks for in it.
    """
    client, resource, _ = GRANTS[grant]
    match state:
        case "tenant disabled":
            await world.change(TENANTS, "default", disabled=True)
        case "client disabled":
            await world.change(CLIENTS, client, disabled=True)
        case "grant taken away":
            taken = {"grants": (), "allow_operator_grants": False}
            await world.change(CLIENTS, client, **taken)
        case "resource disabled":
            for each in ("api", "mail", "old"):
                await world.change(RESOURCES, each, disabled=True)
        case "resource taken away":
            await world.change(CLIENTS, client, resources=())
        case "scope beyond the client":
            return {"scope": "read admin"}
        case "scope malformed":
            return {"scope": 'read "write"'}
        case "resource unknown":
            return {"resource": "urn:example:elsewhere"}
        case "user disabled":
            await world.change_user(disabled=True)
        case "user removed":
            await world.remove_user()
    assert resource in {"api", "old"}
    return {}


EXPECTED = {
    "tenant disabled": "invalid_client",
    "client disabled": "invalid_client",
    "grant taken away": "unauthorized_client",
    "resource disabled": "invalid_target",
    "resource taken away": "invalid_target",
    "scope beyond the client": "invalid_scope",
    "scope malformed": "invalid_scope",
    "resource unknown": "invalid_target",
    "user disabled": "invalid_grant",
    "user removed": "invalid_grant",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("grant", GRANTS)
def test_every_grant_passes_the_one_choke_point(world, grant, state):
    """
    Each state stops each grant with the same error, and no other grant goes around it (T6).
    """

    async def story():
        await world.start()
        first = await world.family("web")
        asked = await disturb(world, grant, state)
        try:
            return await use(world, grant, first.refresh_token, **asked)
        except (OAuthError, NotFoundError) as error:
            return error

    found = asyncio.run(story())
    expected = EXPECTED.get(state)
    if (grant, state) == ("password", "grant taken away"):
        # No other client has it, so it is not offered at all (ACC-2).
        expected = "unsupported_grant_type"
    if (grant, state) == ("operator", "user removed"):
        expected = "not_found"
    if state.startswith("user") and not GRANTS[grant][2]:
        expected = None

    assert expected == getattr(found, "error", getattr(found, "code", None))
    if expected is None:
        assert found.access_token


@pytest.mark.parametrize("grant", GRANTS)
def test_a_state_that_is_lifted_lets_the_grant_pass_again(world, grant):
    """
    Nothing of a refusal sticks, but where it revoked the family.
    """

    async def story():
        await world.start()
        first = await world.family("web")
        for state in ("tenant disabled", "client disabled", "resource disabled"):
            await disturb(world, grant, state)
            with pytest.raises(OAuthError):
                await use(world, grant, first.refresh_token)
            await world.change(TENANTS, "default", disabled=False)
            await world.change(CLIENTS, GRANTS[grant][0], disabled=False)
            for each in ("api", "mail", "old"):
                await world.change(RESOURCES, each, disabled=False)
        return await use(world, grant, first.refresh_token)

    assert asyncio.run(story()).access_token


@pytest.mark.parametrize(
    ("asked", "audience", "scope"),
    [
        ({}, API, "read write"),
        ({"scope": "read"}, API, "read"),
        ({"scope": "write read write"}, API, "write read"),
        ({"scope": "mail"}, MAIL, "mail"),
        ({"scope": "mail read"}, MAIL, "mail read"),
        ({"scope": "mail write"}, API, "write"),
        ({"resource": API}, API, "read write"),
        ({"resource": MAIL}, MAIL, "read mail"),
        ({"resource": MAIL, "scope": "mail"}, MAIL, "mail"),
        ({"resource": MAIL, "scope": "write"}, None, "invalid_scope"),
        ({"resource": API, "scope": "mail"}, None, "invalid_scope"),
        ({"resource": OLD}, None, "invalid_target"),
        ({"resource": API + "/"}, None, "invalid_target"),
        ({"resource": "api"}, None, "invalid_target"),
        ({"scope": "read  write"}, None, "invalid_scope"),
        ({"scope": " read"}, None, "invalid_scope"),
        ({"scope": "read\twrite"}, None, "invalid_scope"),
        ({"scope": "rëad"}, None, "invalid_scope"),
        ({"scope": "read " * 1000 + "read"}, None, "invalid_scope"),
        ({"scope": "admin"}, None, "invalid_scope"),
    ],
)
def test_scopes_and_resources_of_a_new_grant(world, asked, audience, scope):
    """
    One audience per token: the one asked for, else the one that knows most of the scope.
    """

    async def story():
        await world.start()
        try:
            return await world.token("machine", **asked)
        except OAuthError as error:
            return error

    found = asyncio.run(story())

    if audience is None:
        assert scope == found.error
        return
    assert scope == found.scope
    assert audience == claims_of(found.access_token)["aud"]
    assert scope == claims_of(found.access_token)["scope"]


def test_a_client_without_scopes_gets_a_token_without_scope(world):
    """
    No scope is no member, not an empty one.
    """

    async def story():
        await world.start()
        await world.client("bare", grants=("client_credentials",), resources=("api",))
        return await world.token("bare")

    answer = asyncio.run(story())

    assert answer.scope is None
    assert "scope" not in claims_of(answer.access_token)


def test_R9_narrowing_at_one_refresh_does_not_erode_the_grant(world):
    """
    A narrowed refresh is followed by one with the full scope again.
    """

    async def story():
        await world.start()
        first = await world.family(scope="read write")
        narrowed = await world.refresh("web", first.refresh_token, scope="read")
        full = await world.refresh("web", narrowed.refresh_token)
        return [each.scope for each in (first, narrowed, full)]

    assert ["read write", "read", "read write"] == asyncio.run(story())


def test_a_refresh_reaches_another_granted_api_also_the_first_time(world):
    """
    Audience, algorithm and lifetime are that API's; without ``resource`` the first granted.
    """

    async def story():
        await world.start()
        first = await world.family()
        second = await world.refresh("web", first.refresh_token, resource=MAIL)
        third = await world.refresh("web", second.refresh_token)
        return first, second, third

    first, second, third = asyncio.run(story())

    audiences = [claims_of(e.access_token)["aud"] for e in (first, second, third)]
    assert [API, MAIL, API] == audiences
    assert [600, 120, 600] == [e.expires_in for e in (first, second, third)]
    assert "read mail" == second.scope


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"scope": "read mail"}, "invalid_scope"),
        ({"scope": 'bad"'}, "invalid_scope"),
        ({"scope": "write", "resource": MAIL}, "invalid_scope"),
        ({"resource": MAIL}, "invalid_target"),
        ({"resource": OLD}, "invalid_target"),
    ],
)
def test_T6_widening_is_refused_and_does_not_use_the_token_up(world, asked, error):
    """
    B5 case 6: wider scope or another resource fails, and the same token still works.
    """

    async def story():
        await world.start()
        first = await world.family(scope="read", resource=API)
        with pytest.raises(OAuthError) as caught:
            await world.refresh("web", first.refresh_token, **asked)
        again = await world.refresh("web", first.refresh_token)
        return caught.value.error, again

    found, again = asyncio.run(story())

    assert error == found
    assert again.refresh_token
    assert ["refresh.rotated"] == [
        name for name in world.events.names() if name == "refresh.rotated"
    ]


def test_a_scope_of_another_api_is_refused_before_the_token_is_used(world):
    """
    Asking an API only for what it does not know fails without using the token up.
    """

    async def story():
        await world.start()
        first = await world.family()
        with pytest.raises(OAuthError) as caught:
            await world.refresh(
                "web", first.refresh_token, resource=MAIL, scope="write"
            )
        return caught.value.error, await world.refresh("web", first.refresh_token)

    error, again = asyncio.run(story())

    assert "invalid_scope" == error
    assert again.refresh_token


def test_T6_a_scope_taken_from_the_client_is_gone_at_the_next_refresh(world):
    """
    State is read at refresh: the removed scope is not in the token, and asking is an error.
    """

    async def story():
        await world.start()
        first = await world.family()
        await world.change(CLIENTS, "web", scopes=("read",))
        with pytest.raises(OAuthError) as caught:
            await world.refresh("web", first.refresh_token, scope="write")
        return caught.value.error, await world.refresh("web", first.refresh_token)

    error, answer = asyncio.run(story())

    assert "invalid_scope" == error
    assert "read" == answer.scope


def test_T6_a_resource_that_was_disabled_gives_no_token_at_refresh(world):
    """
    A disabled audience is refused by name, and left out where another one was granted.
    """

    async def story():
        await world.start()
        first = await world.family()
        await world.change(RESOURCES, "mail", disabled=True)
        with pytest.raises(OAuthError) as caught:
            await world.refresh("web", first.refresh_token, resource=MAIL)
        return caught.value.error, await world.refresh("web", first.refresh_token)

    error, answer = asyncio.run(story())

    assert "invalid_target" == error
    assert API == claims_of(answer.access_token)["aud"]


def test_what_was_decided_for_a_client_goes_when_something_changes(world):
    """
    Remembered decisions are bounded, and dropped with the client's record.
    """

    async def story():
        await world.start()
        await world.token("machine")
        record = await world.directory.get_client("default", "machine")
        assert 1 == len(record.plans)
        for n in range(300):
            with pytest.raises(OAuthError):
                await world.token("machine", scope=f"unknown-{n}")
        assert 1 == len(record.plans)
        await world.change(RESOURCES, "api", scopes=("read",))
        return await world.token("machine")

    assert "read" == asyncio.run(story()).scope
