"""
The fixtures of the real servers: each is started when it is first asked for, once a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.servers.mariadb import MariaDb
from tests.servers.moto import Moto
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer
from tests.servers.softhsm import SoftHsm

if TYPE_CHECKING:
    from tests.servers.azurite import Azurite


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    with MariaDb.running() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer.running() as server:
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    from tests.servers.azurite import Azurite

    with Azurite.running() as server:
        yield server


@pytest.fixture(scope="session")
def azurite_over_tls() -> Iterator[Azurite]:
    from tests.servers.azurite import Azurite

    with Azurite.running(tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    with Moto.running() as server:
        yield server


@pytest.fixture(scope="session")
def softhsm() -> Iterator[SoftHsm]:
    with SoftHsm.running() as hsm:
        yield hsm
