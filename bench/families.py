"""
The figure of growth: a refresh must not cost more because there are many families.

Both databases hold the same number of families whose tokens are known here, with ids spread
over the whole key space, and differ in how many others lie around them.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from bench import servers
from bench.figure import Better, Figure, in_turns
from bench.load import SPREAD_REFRESH
from kagimori.compose import Installation, opened
from kagimori.crypto.digests import random_id
from kagimori.identity.user import User, creation, new_user
from kagimori.oauth.client import CLIENTS
from kagimori.settings import read_settings
from kagimori.storage.store import ABSENT, Change
from kagimori.tokens.family import RefreshTokenFamily
from kagimori.tokens.records import FAMILIES

TENANT = "default"
CLIENT = "testclient"
SIGN_IN = "grant_type=password&username=test&password=test"
KNOWN = 800
FEW = 1_000
MANY = 1_000_000
FAMILIES_OF_A_USER = 20
BATCH = 4_000


async def _write(installation: Installation, changes: Iterable[Change]) -> None:
    """
    Commit any number of changes, a batch at a time.
    """
    rest = iter(changes)
    while batch := list(islice(rest, BATCH)):
        await installation.store.commit(TENANT, batch)


async def _sign_in(
    installation: Installation, user: User, template: RefreshTokenFamily
) -> str:
    """
    Open a family as a sign-in would; return its first token.
    """
    client = await CLIENTS.get(installation.store, TENANT, CLIENT)
    if client is None:
        raise RuntimeError("The demo world's client is not there.")
    family = await installation.oauth.families.open_family(
        TENANT,
        client=CLIENT,
        user=user.id,
        epoch=user.epoch,
        policy=client.value.refresh_policy,
        longest_access=template.longest_access,
        now=installation.clock.now(),
        scope=template.scope,
        resources=template.resources,
    )
    return family.token.text


async def _fill(data: Path, count: int) -> list[str]:
    """
    Bring a demo folder to `count` families; return the tokens of those that are known.
    """
    async with opened(read_settings(data, {})) as installation:
        now = datetime.now(UTC)
        users = [
            new_user(f"bench-{number}", now=now)
            for number in range(max(KNOWN, count // FAMILIES_OF_A_USER))
        ]
        await _write(
            installation, (change for user in users for change in creation(user))
        )
        (first, *_) = await FAMILIES.find(installation.store, TENANT)
        tokens = await asyncio.gather(
            *(_sign_in(installation, user, first.value) for user in users[:KNOWN])
        )

        def others() -> Iterator[Change]:
            for number in range(count - KNOWN):
                other = msgspec.structs.replace(
                    first.value, id=random_id(), user=users[number % len(users)].id
                )
                yield FAMILIES.put(other.id, other, ABSENT)

        await _write(installation, others())
    return list(tokens)


def _folder(data: Path, count: int) -> Path:
    """
    Make a demo folder with `count` families; return the file of the known tokens.
    """
    with servers.ours(data) as server:
        status, body = server.post("/oauth/token", SIGN_IN, servers.LEGACY["BASIC"])
        if status != 200:
            raise RuntimeError(f"The first sign-in was refused: {body!r}")
    tokens = data.with_suffix(".tokens")
    tokens.write_text("\n".join(asyncio.run(_fill(data, count))) + "\n", "utf-8")
    return tokens


def growth() -> Figure:
    """
    Measure the cost of a refresh among a million families and among a thousand.
    """
    with tempfile.TemporaryDirectory() as name:
        few, many = Path(name) / "few", Path(name) / "many"
        few_tokens, many_tokens = _folder(few, FEW), _folder(many, MANY)
        size = (many / "kagimori.db").stat().st_size / 1e6

        def cost(server: servers.Server, tokens: Path) -> float:
            environment = {
                "BASIC": servers.LEGACY["BASIC"],
                "THREADS": str(SPREAD_REFRESH.threads),
                "TOKENS": str(tokens),
            }
            return (
                1e6 / SPREAD_REFRESH.run(server.url("/oauth/token"), environment).rate
            )

        with servers.ours(few) as small, servers.ours(many) as large:
            ours, theirs = in_turns(
                lambda: cost(large, many_tokens), lambda: cost(small, few_tokens)
            )
    return Figure(
        "families",
        "cost of a refresh among 1,000,000 families, against among 1,000",
        f"wrk, {SPREAD_REFRESH.threads} threads with one connection each, "
        f"{SPREAD_REFRESH.seconds} s a turn, {KNOWN} families spread over the key space "
        "refreshed in turn; one server for each database",
        "µs",
        Better.LOWER,
        1.2,
        ours,
        theirs,
        extra={"the larger database": f"{size:,.0f} MB"},
    )


FIGURES = {"families": growth}
