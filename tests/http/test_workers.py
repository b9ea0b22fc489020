"""
Several worker processes behind one listener, and the parent that keeps them.
"""

from __future__ import annotations

import re
import signal
import time

import psutil
import pytest

from tests.e2e.server import Server, eventually


@pytest.fixture
def server(tmp_path):
    """
    A demo world with two workers.
    """
    made = Server(tmp_path / "data", workers=2)
    yield made.start()
    made.close()


def is_worker(process):
    try:
        return "kagimori.http.worker" in process.cmdline()
    except psutil.Error:
        # It has just ended.
        return False


def workers(server):
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if is_worker(child)]


def alive(processes):
    return [each for each in processes if each.is_running() and is_worker(each)]


def test_two_workers_serve_and_one_that_dies_is_replaced(server):
    """
    Figures of both are added up; kill -9 of one costs nobody but its open requests; both drain.
    """
    children = workers(server)
    for _ in range(60):
        assert 200 == server.probe("/readyz").status

    def counted():
        text = server.admin("/metrics").body.decode()
        found = re.search(r'route="readyz",status="200"\} (\d+)', text)
        return int(found[1]) >= 60 and "kagimori_processes 2.0" in text

    assert 2 == len(children) == server.report["workers"]
    assert eventually(counted, 10)

    children[0].kill()

    assert eventually(lambda: len(set(alive(workers(server))) - {children[0]}) == 2, 20)
    assert eventually(server.ready, 10)
    assert "worker.died" in server.log
    with server.client() as client:
        assert client.machine_token()
    children = workers(server)
    assert 0 == server.stop()
    assert [] == alive(children)


def test_ctrl_c_ends_all_workers_at_once_and_a_wrong_passphrase_starts_none(server):
    """
    Then the parent opens the installation first: one clear text, exit 3, no worker.
    """
    children = workers(server)
    begin = time.monotonic()
    server.signal(signal.SIGINT)
    server.wait()
    took = time.monotonic() - begin
    left = alive(children)

    (server.data / "passphrase").write_text("wrong\n")
    text = server.refuses(3)

    assert took < 5
    assert [] == left
    assert "Use the passphrase that the ring was made with" in text
    assert 1 == text.count("Error:")
    assert "worker.died" not in text


def test_workers_end_when_their_parent_is_gone(server):
    """
    Kill -9 of the parent leaves no worker behind, and the port is free again.
    """
    children = workers(server)

    server.kill()

    assert eventually(lambda: alive(children) == [], 20)
    assert server.probe("/healthz") is None


def test_a_worker_that_cannot_start_ends_the_server(server):
    """
    When the passphrase changes while it runs, a replaced worker finds a permanent fault.
    """
    (server.data / "passphrase").write_text("wrong\n")
    for child in workers(server):
        child.kill()

    assert 3 == server.wait(60)
    assert "Traceback" not in server.log
