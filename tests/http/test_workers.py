"""
Several worker processes behind one listener, and the parent that keeps them.
"""

from __future__ import annotations

import os
import re
import signal
import time

import psutil
import pytest

from tests.e2e.server import Server, eventually, free_port


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


def test_two_workers_serve_one_listener_and_their_figures_are_added_up(server):
    """
    Both take requests; whichever is asked for figures gives the sum, and both drain at the end.
    """
    children = workers(server)
    for _ in range(60):
        assert 200 == server.probe("/readyz").status
    time.sleep(1.5)

    def counted():
        text = server.admin("/metrics").body.decode()
        found = re.search(r'route="readyz",status="200"\} (\d+)', text)
        return int(found[1]) >= 60 and "kagimori_processes 2.0" in text

    assert 2 == len(children)
    assert eventually(counted, 5)
    assert 2 == server.report["workers"]
    assert 0 == server.stop()
    assert [] == alive(children)


def test_a_worker_that_dies_is_replaced(server):
    """
    Kill -9 of one worker costs nobody but its open requests; soon there are two again.
    """
    killed = workers(server)[0]

    killed.kill()

    assert eventually(
        lambda: len(alive(workers(server))) == 2 and killed not in workers(server), 20
    )
    assert eventually(server.ready, 10)
    assert "worker.died" in server.log
    with server.client() as client:
        assert client.machine_token()


def test_workers_end_when_their_parent_is_gone(server):
    """
    Kill -9 of the parent leaves no worker behind, and the port is free again.
    """
    children = workers(server)

    server.kill()

    assert eventually(lambda: alive(children) == [], 20)
    assert server.probe("/healthz") is None


def test_ctrl_c_ends_all_workers_at_once(server):
    """
    Also while a request is on its way.
    """
    children = workers(server)
    begin = time.monotonic()

    server.signal(signal.SIGINT)
    server.wait()

    assert [] == alive(children)
    assert time.monotonic() - begin < 5


def test_what_is_permanently_wrong_is_told_once_before_any_worker_runs(tmp_path):
    """
    The parent opens the installation first: one clear text, exit 3.
    """
    first = Server(tmp_path / "data", port=free_port()).start()
    first.stop()
    (tmp_path / "data" / "passphrase").write_text("wrong\n")

    text = Server(tmp_path / "data", port=first.port, workers=2).refuses(3)

    assert "Use the passphrase that the ring was made with" in text
    assert 1 == text.count("Error:")
    assert "worker" not in text


def test_a_worker_that_cannot_start_ends_the_server(server, tmp_path):
    """
    When the ring goes while it runs, a replaced worker finds a permanent fault: exit 3.
    """
    (server.data / "passphrase").write_text("wrong\n")
    for child in workers(server):
        os.kill(child.pid, signal.SIGKILL)

    assert 3 == server.wait(60)
    assert "Traceback" not in server.log
