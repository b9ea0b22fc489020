"""
What tests of the HTTP layer share.
"""

from __future__ import annotations

import io
import logging

import pytest
import structlog

from kagimori.http import logs


@pytest.fixture
def stream():
    """
    Send the log into memory for the time of a test.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    written = io.StringIO()
    logs.configure("info", written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
