from __future__ import annotations

import secrets

import pytest

from kagimori.crypto.digests import random_id
from kagimori.errors import ProtectionError
from kagimori.tokens.refresh_token import RefreshToken, TagKey
from kagimori.tokens.successor import NONCE_BYTES, open_successor, seal_successor

KEY = TagKey(b"k" * 32)


def token(family=None, generation=1):
    return RefreshToken.make(
        family or random_id(16), generation, secrets.token_bytes(32), KEY
    )


def sealed_pair():
    presented = token()
    successor = token(presented.family_id, 2)
    return (
        presented,
        successor,
        seal_successor(presented, successor, b"n" * NONCE_BYTES),
    )


def test_B4_who_presents_the_predecessor_gets_the_successor():
    """
    B4: the same text comes out, with the presented token as the only key.
    """
    presented, successor, sealed = sealed_pair()

    assert successor.text == open_successor(presented, sealed).text


def test_B4_a_copy_of_the_database_opens_nothing():
    """
    B4: neither the successor itself, nor a token of the same place, nor the stored hash opens it.
    """
    presented, successor, sealed = sealed_pair()
    for other in (
        successor,
        token(presented.family_id),
        token(),
        presented_by_hash(presented),
    ):
        with pytest.raises(ProtectionError):
            open_successor(other, sealed)


def presented_by_hash(presented):
    """
    Return a token made of what a family stores: the hash in place of the secret.
    """
    return RefreshToken.make(presented.family_id, 1, presented.digest, KEY)


def test_B4_every_altered_bit_is_refused():
    """
    K1: nonce, ciphertext and tag are all authenticated.
    """
    presented, _, sealed = sealed_pair()
    for index in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[index] ^= 1 << bit
            with pytest.raises(ProtectionError):
                open_successor(presented, bytes(altered))


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27, 28])
def test_J11_a_short_seal_is_refused(length):
    """
    J11: a seal without its whole tag opens nothing.
    """
    presented, _, sealed = sealed_pair()

    with pytest.raises(ProtectionError):
        open_successor(presented, sealed[:length])


def test_two_seals_of_one_token_share_nothing():
    """
    Two racing rotations seal under one key with their own nonces.
    """
    presented = token()
    seals = {
        seal_successor(
            presented, token(presented.family_id, 2), secrets.token_bytes(12)
        )
        for _ in range(20)
    }

    assert 20 == len(seals)
