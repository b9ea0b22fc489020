"""
Rings and payloads of every release so far are read.
"""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kagimori import open_ring
from kagimori.errors import PayloadExpiredError, ProtectionError
from kagimori.testing.clock import FixedClock
from tests.frozen.freeze_protection import PASSPHRASE

PLACES = sorted(Path(__file__).parent.glob("*/protection"))


def test_a_release_is_frozen():
    """
    There is at least one, so that the test below has something to read.
    """
    assert PLACES


@pytest.mark.parametrize("name", ["folder", "document"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.parent.name)
def test_what_a_release_wrote_is_read(place: Path, name: str, monkeypatch):
    """
    Its ring opens, and every payload but those of the revoked key, to the expiry.
    """
    monkeypatch.setenv("FROZEN_PASSPHRASE", PASSPHRASE)
    clock = FixedClock(datetime(2030, 1, 3, tzinfo=UTC))
    wrapper = "passphrase:env:FROZEN_PASSPHRASE"
    location = f"file://{place}/folder"
    if name == "document":
        wrapper = f"certificate:{place}/ring.pfx?password-env=FROZEN_PASSPHRASE"
        location = f"file://{place}/document/ring.xml?layout=document"
    ring = open_ring(
        location, application="app", wrapper=wrapper, read_only=True, clock=clock
    )
    written = json.loads((place / "payloads.json").read_text("utf-8"))
    protector = ring.protector(*written["purposes"])
    cases = [case for case in written["cases"] if case["ring"] == name]
    for case in cases:
        plaintext = b64decode(case["plaintext"])
        if case["revoked"]:
            with pytest.raises(ProtectionError):
                protector.unprotect(case["payload"])
            continue
        assert plaintext == protector.unprotect(case["payload"]).payload
        expires = datetime.fromisoformat(case["expires"])
        clock.set(expires)
        assert plaintext == protector.time_limited().unprotect(case["limited"]).payload
        clock.advance(timedelta(microseconds=1))
        with pytest.raises(PayloadExpiredError):
            protector.time_limited().unprotect(case["limited"])

    assert 9 == len(cases)
    assert 3 == len(ring.keys()) == ring.generation
    assert ring.problem is None
