"""
Any form, any header: an answer of the protocol, never a fault (attacks S6).
"""

from __future__ import annotations

import asyncio
import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import OAuthError
from kagimori.oauth.assertions import ASSERTION_TYPE
from kagimori.oauth.throttle import ThrottleLimits
from tests.oauth.world import API, MAIL, World, basic

UNLIMITED = ThrottleLimits(
    subject_per_minute=10**6, address_per_minute=10**6, account_per_hour=10**6
)
ERRORS = {
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
}


class Target:
    """
    A world with tokens in circulation.
    """

    def __init__(self):
        self.world = World(limits=UNLIMITED)
        asyncio.run(self.begin())

    async def begin(self):
        await self.world.start()
        first = await self.world.family()
        self.texts = [
            first.access_token,
            first.refresh_token,
            first.access_token[:-4] + "AAAA",
            first.refresh_token[:-4],
            self.world.assertion(),
            "kgm_rt_",
            "..",
            "a.b.c",
        ]
        self.known = {
            "grant_type": ["client_credentials", "refresh_token", "password", "x"],
            "client_id": ["machine", "spa", "legacy", "nobody", "usr_1"],
            "client_secret": [self.world.secrets["poster"], "secret", "x"],
            "client_assertion_type": [ASSERTION_TYPE, "x"],
            "client_assertion": self.texts,
            "refresh_token": self.texts,
            "token": self.texts,
            "token_type_hint": ["access_token", "refresh_token", "x"],
            "username": ["alice", "nobody"],
            "password": ["x"],
            "scope": ["read", "read write", "admin", " ", "read  write", '"'],
            "resource": [API, MAIL, "x", "urn:x#y"],
        }
        self.headers = [
            None,
            *(basic(each, secret) for each, secret in self.world.secrets.items()),
            basic("nobody", "x"),
            "Basic",
            "Bearer x",
        ]


@pytest.fixture(scope="module")
def target():
    target = Target()
    yield target
    target.world.pool.close()


def forms(target):
    return st.dictionaries(
        st.sampled_from(sorted(target.known)), st.integers(0, 50), max_size=7
    ).map(
        lambda chosen: {
            name: target.known[name][n % len(target.known[name])]
            for name, n in chosen.items()
        }
    )


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@pytest.mark.parametrize("endpoint", ["token", "revoke", "introspect"])
@given(data=st.data())
def test_S6_no_request_is_a_fault(target, endpoint, data):
    """
    Whatever is sent, the answer is a success or a registered error of the client's making.
    """
    form = data.draw(forms(target))
    noise = data.draw(
        st.dictionaries(st.sampled_from(sorted(target.known)), ANY_TEXT, max_size=2)
    )
    header = data.draw(
        st.one_of(
            st.sampled_from(target.headers),
            ANY_TEXT,
            st.binary(max_size=60).map(
                lambda raw: "Basic " + base64.b64encode(raw).decode()
            ),
        )
    )
    services = target.world.services
    request = target.world.request({**form, **noise}, header)
    act = {
        "token": services.token.token,
        "revoke": services.revocation.revoke,
        "introspect": services.introspection.introspect,
    }[endpoint]

    error = asyncio.run(outcome(act, request))

    if error is not None:
        assert error.status in (400, 401)
        assert error.error in ERRORS
        assert error.description.isascii()
        assert (error.status == 401) == bool(error.challenge)


async def outcome(act, request):
    """
    Return the error of the protocol that a request ends in, if it does.
    """
    try:
        await act(request)
    except OAuthError as error:
        return error
    return None
