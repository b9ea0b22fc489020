"""
Several workers and several servers on one database agree to the instant.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime

import psutil
import pytest

from tests.e2e.server import (
    EMERGENCY,
    FIRST_KEYS,
    LOST,
    Client,
    Program,
    basic,
    eventually,
    free_port,
    kid,
)

RESOLUTION = 0.02
"""Seconds by which reading the clock and smoothing it may move an instant."""

FORM = {"grant_type": "client_credentials"}


@dataclass(frozen=True)
class Sample:
    """
    A token, when it was asked for and when it came, and which process made it.
    """

    sent: float
    received: float
    kid: str
    process: str


class Sampler:
    """
    Asks for tokens on new connections, so that every process behind a listener is met.
    """

    def __init__(self, port, authorization):
        self.samples = []
        self.failures = []
        self._port = port
        self._authorization = authorization
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        self._thread.join()

    def _work(self):
        while not self._over.is_set():
            try:
                with Client(self._port) as client:
                    for _ in range(3):
                        sent = time.time()
                        answer = client.post("/oauth/token", FORM, self._authorization)
                        received = time.time()
                        assert 200 == answer.status, str(answer)
                        # Ids begin with what is random for the process.
                        process = answer.headers["x-request-id"][:10]
                        name = kid(answer.json["access_token"])
                        self.samples.append(Sample(sent, received, name, process))
            except (AssertionError, *LOST) as error:
                self.failures.append(repr(error))
                return


@pytest.fixture
def installed(tmp_path):
    """
    An installation for real use, with a client, its credentials and a port.
    """
    program = Program(tmp_path / "data")
    port = free_port()
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("many instances and one ring\n")
    passphrase.chmod(0o600)
    program.ok(
        *("init", "--issuer", f"http://localhost:{port}"),
        *("--wrapper", f"passphrase:file:{passphrase}"),
    )
    program.ok("apis", "create", "orders", "--identifier", "urn:orders")
    made = program.json(
        *("clients", "create", "robot", "--grant", "client_credentials"),
        *("--api", "orders"),
    )
    return port, basic("robot", made["secret"])


def test_two_workers_and_two_servers_switch_at_the_same_instant(installed, make_server):
    """
    No token of the old key is made after the instant, none of the new one before, in any process.
    """
    port, robot = installed
    first = make_server(demo=False, workers=2, port=port).start()
    second = make_server(demo=False).start()
    assert 2 == len(psutil.Process(first.process.pid).children())
    switches = []

    with (
        Sampler(first.port, robot) as one,
        Sampler(first.port, robot) as other,
        Sampler(second.port, robot) as third,
    ):
        old = eventually(lambda: one.samples and third.samples, 10)[0].kid
        for _ in range(5):
            outcome = first.program.json(*EMERGENCY)
            instant = datetime.fromisoformat(outcome["key"]["activates"]).timestamp()
            switches.append((instant, old, outcome["key"]["kid"]))
            old = outcome["key"]["kid"]
            # The command returns after the switch; each process makes some tokens after it.
            seen = len(third.samples), len(one.samples)
            eventually(
                lambda s=seen: (
                    len(third.samples) > s[0] + 9 and len(one.samples) > s[1] + 9
                ),
                10,
            )

    assert [] == one.failures + other.failures + third.failures
    samples = one.samples + other.samples + third.samples
    for instant, before, after in switches:
        late = [s for s in samples if s.kid == before and s.sent > instant + RESOLUTION]
        early = [
            s for s in samples if s.kid == after and s.received < instant - RESOLUTION
        ]
        assert ([], []) == (late, early)
    # Three processes made tokens before and after each switch, so the comparison means something.
    made = defaultdict(Counter)
    for sample in samples:
        made[sample.process][sample.kid] += 1
    assert 3 == len(made)
    for _, before, after in switches:
        assert all(counts[before] and counts[after] for counts in made.values())
    assert 6 == len({sample.kid for sample in samples})


def test_a_change_at_one_server_is_seen_by_the_other(installed, make_server):
    """
    REV-4: a revocation, a client and a tenant made through one process count in the others.
    """
    port, robot = installed
    first = make_server(demo=False, workers=2, port=port).start()
    second = make_server(demo=False).start()
    program = first.program
    with first.client() as here, second.client() as there:
        token = here.ok(FORM, robot)["access_token"]
        assert kid(token) in there.kids()

        made = program.json(
            *("clients", "create", "watch", "--api", "orders", "--may-introspect"),
        )
        watch = basic("watch", made["secret"])

        def active(client):
            answer = client.post("/oauth/introspect", {"token": token}, watch)
            return answer.json["active"] if answer.status == 200 else None

        assert eventually(lambda: active(here), 2) is True
        assert eventually(lambda: active(there), 2) is True
        assert 200 == here.post("/oauth/revoke", {"token": token}, robot).status
        # The revocation stands in the store, which introspection reads.
        assert active(there) is False

        program.ok("clients", "disable", "robot", "--yes")
        assert eventually(
            lambda: (
                {c.post("/oauth/token", FORM, robot).status for c in (here, there)}
                == {401}
            ),
            2,
        )


def test_K4_twenty_servers_on_an_empty_folder_make_one_ring_and_one_set_of_keys(
    make_server, tmp_path
):
    """
    All twenty get ready and sign with the same key; nothing was made twice.
    """
    data = tmp_path / "data"
    servers = [make_server(data) for _ in range(20)]
    for server in servers:
        server.launch("--json")
    for server in servers:
        server.await_ready(180)

    tokens = [server.client().machine_token() for server in servers]
    documents = {tuple(sorted(server.client().kids())) for server in servers}
    program = servers[0].program
    keys = Counter((k["use"], k["algorithm"]) for k in program.json("keys", "list"))

    assert 1 == len({kid(token) for token in tokens})
    assert 1 == len(documents)
    assert 1 == len(list((data / "ring").glob("key-*.xml")))
    assert FIRST_KEYS == keys
    assert ["test"] == [user["username"] for user in program.json("users", "list")]
    assert {"testclient", "machine"} == {
        c["id"] for c in program.json("clients", "list")
    }
    assert 2 == len(program.json("clients", "list"))
    assert all("Traceback" not in server.log for server in servers)
