"""
Real server processes for the end-to-end tests.
"""

from __future__ import annotations

import pytest

from tests.e2e.server import NO_THROTTLE, Server


@pytest.fixture
def make_server(tmp_path):
    """
    Make servers that are ended with the test; the first one's folder is ``data``.
    """
    made = []

    def make(data=None, **options):
        server = Server(data or tmp_path / "data", **options)
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def demo(make_server):
    """
    A demo world that serves, with nothing throttled.
    """
    return make_server(environ=NO_THROTTLE).start()
