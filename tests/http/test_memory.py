"""
What a server process keeps of its memory.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psutil

from tests.e2e.server import MACHINE_GRANT, NO_THROTTLE, basic, serving

HASH = 19 * 1024 * 1024
"""What one password hash takes while it runs."""


def test_A15_hashing_leaves_no_memory_behind(tmp_path):
    """
    After a flood of wrong secrets the process is as small as before: less than one hash more.
    """

    def guess(number):
        with server.client() as client:
            wrong = basic("machine", f"wrong-{number}")
            return client.post("/oauth/token", MACHINE_GRANT, wrong).status

    with serving(tmp_path / "data", environ=NO_THROTTLE) as server:
        process = psutil.Process(server.process.pid)
        guess(0)
        before = process.memory_info().rss
        with ThreadPoolExecutor(8) as pool:
            statuses = set(pool.map(guess, range(1, 40)))
        after = process.memory_info().rss

    assert {401} == statuses
    assert after - before < HASH
