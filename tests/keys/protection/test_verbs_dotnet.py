"""
Live: what our verbs leave in a ring, read by real ASP.NET Core Data Protection.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from kagimori.keys.protection.copying import copy_ring
from kagimori.opening import open_store, open_wrapper
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.dotnet import Peer
from tests.keys.protection.vault import Vault

pytestmark = pytest.mark.dp_peer


@pytest.fixture(params=[("folder", "certificate"), ("document", "plain")], ids="-".join)
def peer(request, dp_peer, tmp_path) -> Peer:
    """
    .NET on a ring of either layout, one of them clear and one under a certificate.
    """
    return Peer(dp_peer, tmp_path, *request.param)


def agreed(peer: Peer, ring) -> None:
    """
    .NET protects with the same key, can read every key, and wants to make none.
    """
    listed = peer.keys()
    assert (ring.current_key_id, False) == (listed["default"], listed["generate"])
    assert {True} == {key["readable"] for key in listed["keys"]}


def test_dotnet_follows_every_verb(peer: Peer):
    """
    A successor, one brought forward, one taken back, revocations of both kinds, a deletion: its
    choice is ours each time, what is revoked does not open there, and it never wants a new key.
    """
    ring = peer.ring()
    protector = ring.protector(*peer.purposes)
    first, old = ring.current_key_id, protector.protect(b"old")
    waiting = ring.rotate()
    agreed(peer, ring)
    ring.activate(waiting.id, emergency=True)
    agreed(peer, ring)
    assert waiting.id == ring.current_key_id

    ring.rotate(activates=ring.now() + timedelta(days=5))
    ring.cancel()
    agreed(peer, ring)
    young = protector.protect(b"young")
    ring.revoke(waiting.id, "stolen & sold")
    agreed(peer, ring)
    assert [b"old", None] == peer.opened([old, young])
    ring.revoke_before(ring.now(), "everything")
    newest = protector.protect(b"newest")
    assert [None, None, b"newest"] == peer.opened([old, young, newest])
    ring.delete(first)
    agreed(peer, ring)
    # Its revocation stays, and names a key that is not there.
    ring.delete(waiting.id)
    agreed(peer, ring)
    assert not {first, waiting.id} & {key["id"] for key in peer.keys()["keys"]}


def test_dotnet_skips_second_envelopes(peer: Peer):
    """
    They lie beside its elements; its keys stay readable and it makes none.
    """
    ring = peer.ring()
    ring.rotate(immediate=True)
    assert 2 == ring.add_recovery(Vault())
    sealed = ring.protector(*peer.purposes).protect(b"x")
    assert [b"x"] == peer.opened([sealed])

    agreed(peer, ring)


def test_dotnet_reads_what_was_wrapped_anew(peer: Peer):
    """
    Its own ring, wrapped by something of ours and back again: what it had protected opens.
    """
    (payload,) = peer.protect([b"x"])
    ring = peer.ring()
    ring.rewrap(Vault())
    assert b"x" == ring.protector(*peer.purposes).unprotect(payload).payload
    ring.rewrap(open_wrapper(peer.wrapper))
    agreed(peer, ring)

    assert [b"x"] == peer.opened([payload])


def test_dotnet_reads_a_copy(peer: Peer, dp_peer, tmp_path):
    """
    Leaving one place for another with the keys that .NET made there: payloads open in both.
    """
    (payload,) = peer.protect([b"x"])
    place = tmp_path / "copy"
    place.mkdir()
    other = Peer(dp_peer, place, "folder", "plain")
    copy_ring(
        open_store(peer.location, read_only=True),
        open_store(other.location),
        unwrap_by=[open_wrapper(peer.wrapper)],
        wrapper=PlaintextWrapper(),
    )

    assert [b"x"] == other.opened([payload])
    assert peer.keys()["default"] == other.keys()["default"]
