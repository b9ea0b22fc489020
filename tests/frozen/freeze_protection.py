"""
Freeze rings and payloads of this release: ``python -m tests.frozen.freeze_protection RELEASE``.

Refuses to touch a release that is frozen already. What it writes is committed and never changed:
every later release must read it (`tests/frozen/test_protection.py`).
"""

from __future__ import annotations

import base64
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kagimori import open_ring
from kagimori.keys.protection import elements, ticks, xml
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.store import Element
from kagimori.opening import open_store
from kagimori.testing.clock import FixedClock
from tests.wrappers.certificates import pfx

PASSPHRASE = "frozen and of no use"
PAYLOADS = [b"", b"payload", bytes(range(256))]
PURPOSES = ["frozen", "鍵", ""]


def freeze(place: Path) -> None:
    """
    Make a folder under a passphrase and a document under a certificate, and their payloads.
    """
    place.mkdir(parents=True)
    os.environ["FROZEN_PASSPHRASE"] = PASSPHRASE
    (place / "ring.pfx").write_bytes(pfx("frozen", PASSPHRASE.encode()))
    rings = {
        "folder": (f"file://{place}/folder", "passphrase:env:FROZEN_PASSPHRASE"),
        "document": (
            f"file://{place}/document/ring.xml?layout=document",
            f"certificate:{place}/ring.pfx?password-env=FROZEN_PASSPHRASE",
        ),
    }
    cases = []
    for name, (location, wrapper) in rings.items():
        clock = FixedClock(datetime(2030, 1, 1, tzinfo=UTC))
        for algorithm in ("AES_256_GCM", "AES_256_CBC_HMACSHA256", "AES_256_GCM"):
            ring = open_ring(
                location,
                application="app",
                wrapper=wrapper,
                algorithm=algorithm,
                clock=clock,
            )
            if cases and cases[-1]["ring"] == name:
                clock.advance(timedelta(days=1))
                ring.rotate(immediate=True, reason="frozen")
            protector = ring.protector(*PURPOSES)
            limited = protector.time_limited()
            expires = clock.now() + timedelta(days=1)
            cases += [
                {
                    "ring": name,
                    "key": ring.current_key_id,
                    "plaintext": base64.b64encode(payload).decode(),
                    "payload": protector.protect(payload),
                    "limited": limited.protect(payload, expires_at=expires),
                    "expires": expires.isoformat(),
                    "revoked": False,
                }
                for payload in PAYLOADS
            ]
        first = next(case["key"] for case in cases if case["ring"] == name)
        for case in cases:
            case["revoked"] |= case["key"] == first
        revocation = elements.revocation_element(
            Revocation(first, ticks.from_datetime(clock.now())), "frozen"
        )
        store = open_store(location)
        element = Element(elements.friendly_name(revocation), xml.write(revocation))
        store.commit([element], (), store.load().version)
    text = json.dumps({"purposes": PURPOSES, "cases": cases}, indent=1)
    (place / "payloads.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    freeze(Path(__file__).parent / sys.argv[1] / "protection")
