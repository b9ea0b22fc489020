"""
Servers killed with kill -9 in the middle of refreshes and rotations.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
import pytest

from tests.e2e.server import (
    EMERGENCY,
    FIRST_KEYS,
    LOST,
    NO_THROTTLE,
    environment,
    eventually,
    kid,
)

FAMILIES = 15
"""Sign-ins of each client: of a user and a client, 100 families live at most (B7)."""


class Survivor:
    """
    A client that refreshes until the server dies, and goes on with what it was last given.

    Attributes:
        token: the last refresh token that was acknowledged.
        families: the last acknowledged token of each earlier sign-in.
        acknowledged: how many refreshes were answered.
        lost: how many were not.
        failures: what must not have been answered.
    """

    def __init__(self, number, server):
        self.server = server
        self.chance = random.Random(number)
        self.token = None
        self.families = []
        self.acknowledged = self.lost = 0
        self.failures = []

    def live(self):
        """
        Refresh until the answer is lost.
        """
        try:
            with self.server.client() as client:
                if self.token is None:
                    self._sign_in(client)
                while not self.failures:
                    self._refresh(client)
                    if len(self.families) < FAMILIES and self.chance.random() < 0.02:
                        # Another sign-in; the family of before has to be there at the end.
                        before = self.token
                        self._sign_in(client)
                        self.families.append(before)
        except LOST:
            self.lost += 1

    def _sign_in(self, client):
        tokens = client.password_grant()
        self.token = tokens["refresh_token"]

    def _refresh(self, client):
        answer = client.try_refresh(self.token)
        if answer.status != 200:
            self.failures.append(f"after {self.acknowledged} refreshes: {answer}")
            return
        self.token = answer.json["refresh_token"]
        self.acknowledged += 1


class Rotations:
    """
    A process that rotates keys, which is killed like the server.
    """

    def __init__(self, data, folder):
        self._out = folder / "rotated"
        self._command = [sys.executable, "-m", "tests.e2e.rotator", str(data)]
        self._process = None

    def start(self):
        with self._out.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, stdout=out, stderr=subprocess.PIPE, env=environment()
            )

    def kill(self):
        if self._process is None:
            return ""
        self._process.kill()
        _, said = self._process.communicate()
        self._process = None
        return said.decode()

    @property
    def acknowledged(self):
        """
        The keys that were told to have taken over.
        """
        text = self._out.read_text() if self._out.exists() else ""
        return text.splitlines()


@pytest.mark.parametrize(
    "kills", [50, pytest.param(1000, marks=pytest.mark.soak, id="1000")]
)
def test_R11_R12_no_kill_loses_an_acknowledged_refresh_a_family_or_a_key(
    make_server, tmp_path, kills
):
    """
    After each kill -9 every client goes on with its last token; each algorithm has one key.
    """
    server = make_server(environ=NO_THROTTLE)
    rotations = Rotations(server.data, tmp_path)
    chance = random.Random(kills)
    survivors = [Survivor(number, server) for number in range(4)]
    server.start()
    try:
        for round_ in range(kills):
            if round_ % 3 == 0:
                rotations.start()
            threads = [threading.Thread(target=each.live) for each in survivors]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.02, 0.5))
            if round_ % 3 == 2 and chance.random() < 0.5:
                # Both orders: the server outlives the command, and the command the server.
                assert "Traceback" not in rotations.kill()
            server.kill()
            if round_ % 3 == 2:
                assert "Traceback" not in rotations.kill()
            for thread in threads:
                thread.join()
            assert [] == [failure for each in survivors for failure in each.failures]

            if round_ % 5 == 4:
                # Killed while it starts, too.
                server.launch("--json")
                time.sleep(chance.uniform(0.1, 1.2))
                server.kill()
            server.start()
            keys = server.report["keys"]
            assert FIRST_KEYS == Counter((k["use"], k["algorithm"]) for k in keys)
    finally:
        rotations.kill()

    assert sum(each.acknowledged for each in survivors) >= 10 * kills
    assert sum(each.lost for each in survivors) >= kills
    assert len(rotations.acknowledged) >= kills // 10
    assert "Traceback" not in server.log

    client = server.client()
    for survivor in survivors:
        for token in [*survivor.families, survivor.token]:
            assert 200 == client.secret(client.refresh(token)["access_token"]).status
    # No acknowledged rotation was lost, and the trail of all of them is whole.
    listed = {key["kid"]: key["state"] for key in server.program.listed()}
    assert set(rotations.acknowledged) <= set(listed)
    findings = server.program.json("doctor")
    assert [] == [f for f in findings if f["verdict"] != "good"]


def test_K4_a_demo_that_is_killed_while_it_is_made_is_made_once(make_server):
    """
    Kill -9 at any moment of the first start; the next one goes on with what is there.
    """
    chance = random.Random(4)
    server = make_server()
    for _ in range(8):
        server.launch("--json")
        time.sleep(chance.uniform(0.2, 1.2))
        server.kill()

    server.start()

    keys = server.program.json("keys", "list")
    assert FIRST_KEYS == Counter((key["use"], key["algorithm"]) for key in keys)
    assert 1 == len(list((server.data / "ring").glob("key-*.xml")))
    assert server.client().password_grant()


def _live_workers(server):
    children = psutil.Process(server.process.pid).children()
    return [each for each in children if each.status() != psutil.STATUS_ZOMBIE]


def test_R11_a_killed_worker_is_replaced_and_nothing_is_lost(make_server):
    """
    With two workers the parent starts another; tokens of before the kill work with it.
    """
    server = make_server(workers=2, environ=NO_THROTTLE).start()
    before = tokens = server.client().password_grant()
    server.program.ok(*EMERGENCY)

    for _ in range(4):
        _live_workers(server)[0].kill()
        with server.client() as client:
            tokens = _until_answered(
                lambda c=client, t=tokens: c.refresh(t["refresh_token"])
            )
        assert kid(tokens["access_token"]) != kid(before["access_token"])

    # The parent has to have seen the last of them before it is told to end.
    assert eventually(
        lambda: "worker.died" in server.log and len(_live_workers(server)) == 2, 30
    )
    assert 0 == server.stop()


def _until_answered(ask):
    # A connection may have been taken by the worker that was killed.
    for _ in range(20):
        try:
            return ask()
        except LOST:
            time.sleep(0.1)
    raise AssertionError("nobody answered")
