"""
Live, beside real ASP.NET Core Data Protection, in both directions.
"""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta

import pytest

from kagimori.errors import ProtectionError
from kagimori.keys.protection import ticks
from kagimori.keys.protection.algorithms import ALGORITHMS
from tests.dotnet import Peer

pytestmark = pytest.mark.dp_peer

PAYLOADS = [b"", b"x", bytes(range(256)), b"y" * 20_000]


@pytest.fixture(params=[("folder", "certificate"), ("document", "plain")], ids="-".join)
def peer(request, dp_peer, tmp_path) -> Peer:
    """
    .NET on a ring of either layout, one of them clear and one under a certificate.
    """
    return Peer(dp_peer, tmp_path, *request.param)


def test_dotnet_reads_what_we_made(peer: Peer):
    """
    Our ring and payloads open there, our key is its default, and it makes none beside it.
    """
    ring = peer.ring()
    protector = ring.protector(*peer.purposes)
    listed = peer.keys()

    assert (ring.current_key_id, False) == (listed["default"], listed["generate"])
    assert [True] == [key["readable"] for key in listed["keys"]]
    stored = ring._live.contents.keys[0].stored
    dates = [
        ticks.parse(listed["keys"][0][n]) for n in ("created", "activates", "expires")
    ]
    assert [stored.created, stored.activates, stored.expires] == dates
    opened = peer.unprotect([protector.protect(payload) for payload in PAYLOADS])
    assert PAYLOADS == [b64decode(line["plaintext"]) for line in opened]
    assert {False} == {line["requiresMigration"] for line in opened}
    assert 1 == len(peer.keys()["keys"])


def test_we_read_what_dotnet_made(peer: Peer):
    """
    Its ring and payloads open here, its default is our current key, and we make none beside it.
    """
    payloads = peer.protect(PAYLOADS)
    ring = peer.ring()
    protector = ring.protector(*peer.purposes)

    assert PAYLOADS == [protector.unprotect(payload).payload for payload in payloads]
    listed = peer.keys()
    assert listed["default"] == ring.current_key_id
    assert [key["id"] for key in listed["keys"]] == [
        key.id for key in tuple(ring.keys())
    ]
    assert ring.problem is None


def test_both_write_to_one_ring(peer: Peer):
    """
    Rotations and revocations of either side are followed by the other, and payloads go on.
    """
    ring = peer.ring()
    protector = ring.protector(*peer.purposes)
    first, old = ring.current_key_id, protector.protect(b"old")

    made = peer.run("newkey", "--alg", "AES_256_CBC", "--mac", "HMACSHA512")[0]["id"]
    ring.refresh()
    assert made == ring.current_key_id == peer.keys()["default"]
    assert protector.unprotect(old).needs_renewal
    assert b"new" == protector.unprotect(peer.protect([b"new"])[0]).payload
    assert "AES_256_CBC_HMACSHA512" == ring.keys()[-1].algorithm

    waiting = ring.rotate()
    assert {first, made, waiting.id} == {key["id"] for key in peer.keys()["keys"]}
    assert made == peer.keys()["default"]
    newest = ring.rotate(immediate=True).id
    assert newest == peer.keys()["default"]
    assert [b"again"] == [
        b64decode(line["plaintext"])
        for line in peer.unprotect([protector.protect(b"again")])
    ]

    peer.run("revoke", "--key", first, "--reason", "a test")
    ring.refresh()
    with pytest.raises(ProtectionError):
        protector.unprotect(old)
    assert newest == ring.current_key_id == peer.keys()["default"]
    # Nothing of all this left anything behind that a fresh instance would not read.
    assert 4 == len(peer.ring(read_only=True).keys())


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in {"AES_256_GCM", "AES_256_CBC_HMACSHA256"}
        else pytest.param(name, marks=pytest.mark.soak)
        for name in sorted(ALGORITHMS)
    ],
)
def test_every_algorithm_goes_both_ways(dp_peer, tmp_path, name: str):
    """
    A ring of each algorithm, made here: .NET opens ours and we open its payloads.
    """
    peer = Peer(dp_peer, tmp_path, "folder", "plain")
    protector = peer.ring(algorithm=name).protector(*peer.purposes)

    opened = peer.unprotect([protector.protect(payload) for payload in PAYLOADS])
    assert PAYLOADS == [b64decode(line["plaintext"]) for line in opened]
    theirs = peer.protect(PAYLOADS)
    assert PAYLOADS == [protector.unprotect(payload).payload for payload in theirs]


def test_time_limited_payloads_go_both_ways(dp_peer, tmp_path):
    """
    Expiries are the same instants on both sides, and none is none.
    """
    peer = Peer(dp_peer, tmp_path, "folder", "plain")
    ring = peer.ring()
    limited = ring.protector(*peer.purposes).time_limited()
    ends = ring._live.now() + timedelta(days=1)

    ours = [limited.protect(b"x", expires_at=ends), limited.protect(b"y")]
    opened = peer.unprotect(ours, "--expires", "any")
    assert [ticks.from_datetime(ends), ticks.MOST] == [
        ticks.parse(line["expires"]) for line in opened
    ]
    theirs = peer.protect([b"z"], "--expires", ends.isoformat())[0]
    assert (b"z", ends) == (
        limited.unprotect(theirs).payload,
        limited.unprotect(theirs).expires,
    )
    past = peer.protect([b"z"], "--expires", "2001-01-01T00:00:00Z")[0]
    with pytest.raises(ProtectionError):
        limited.unprotect(past)
