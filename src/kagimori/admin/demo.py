"""
The demo world: a user, two clients and two APIs whose secrets everybody knows.

Rules of this module:

1. It is made once, in a folder of its own; what is there already is left as it is, so that
   starting again keeps everything.
2. It alone is exempt from the refusal of known secrets (K10). It answers on this machine only,
   which the settings enforce.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from datetime import timedelta

from kagimori.admin.apis import ApiAdmin, NewApi
from kagimori.admin.client_views import NewClient
from kagimori.admin.clients import ClientAdmin
from kagimori.admin.users import UserAdmin
from kagimori.errors import RefusedError
from kagimori.keys.journal import Cause
from kagimori.oauth.client import AuthMethod, GrantType, Profile
from kagimori.oauth.tenant import DEFAULT_TENANT

USERNAME = PASSWORD = "test"
CLIENT_SECRET = "secret"
LEGACY_CLIENT = "testclient"
MACHINE_CLIENT = "machine"
LEGACY_API = "demo"
API = "api"
ACCESS_TOKEN_LIFETIME = timedelta(seconds=20)

CAUSE = Cause("demo", "the demo world")

APIS = (
    NewApi(
        id=LEGACY_API,
        identifier="urn:kagimori:demo",
        name="Secret area",
        clients=(LEGACY_CLIENT, MACHINE_CLIENT),
        bearer_in_query=True,
        legacy_error_code=True,
    ),
    NewApi(
        id=API,
        identifier="urn:kagimori:api",
        name="Secret area (API)",
        scopes=("api",),
        clients=(LEGACY_CLIENT, MACHINE_CLIENT),
    ),
)

CLIENTS = (
    NewClient(
        id=LEGACY_CLIENT,
        name="Test client",
        profile=Profile.LEGACY_2015,
        auth_method=AuthMethod.BASIC,
        grants=(GrantType.PASSWORD.value, GrantType.REFRESH_TOKEN.value),
        resources=(LEGACY_API,),
        access_token_lifetime=ACCESS_TOKEN_LIFETIME,
        secret=CLIENT_SECRET,
    ),
    NewClient(
        id=MACHINE_CLIENT,
        name="Machine",
        auth_method=AuthMethod.BASIC,
        grants=(GrantType.CLIENT_CREDENTIALS.value,),
        scopes=("api",),
        resources=(API,),
        secret=CLIENT_SECRET,
    ),
)


async def make_demo_world(
    apis: ApiAdmin, clients: ClientAdmin, users: UserAdmin
) -> None:
    """
    Make what is missing of the demo world in the tenant `default`.

    Raises:
        KagimoriError: as the store raises.
    """
    known_apis = {api.id for api in await apis.list(DEFAULT_TENANT)}
    known_clients = {client.id for client in await clients.list(DEFAULT_TENANT)}
    known_users = {user.username for user in await users.list(DEFAULT_TENANT)}
    for api in APIS:
        if api.id not in known_apis:
            await _unless_there(apis.create(DEFAULT_TENANT, api, cause=CAUSE))
    for client in CLIENTS:
        if client.id not in known_clients:
            await _unless_there(clients.create(DEFAULT_TENANT, client, cause=CAUSE))
    if USERNAME not in known_users:
        await _unless_there(
            users.create(
                DEFAULT_TENANT,
                USERNAME,
                name="Test user",
                password=PASSWORD,
                cause=CAUSE,
            )
        )


async def _unless_there(creation: Awaitable[object]) -> None:
    # Another process that makes the same demo was faster.
    with contextlib.suppress(RefusedError):
        await creation
