"""
Moving from Fernet: old tokens are read, new ones are written.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from cryptography.fernet import InvalidToken as TheirInvalidToken

from kagimori.errors import InvalidKeyError, ProtectionError, StoreError
from kagimori.integrations.fernet import InvalidToken, RingFernet

OLDER, OLD = Fernet.generate_key(), Fernet.generate_key()


@pytest.fixture
def fernet(world):
    return RingFernet(world.ring(), old=[OLD, OLDER])


def test_old_tokens_are_read_and_new_ones_are_the_rings(world, fernet):
    """
    Tokens of all old keys decrypt; what is encrypted now turns with the ring.
    """
    new = fernet.encrypt(b"iban")
    assert new.startswith(b"CfDJ8")
    world.ring().rotate(immediate=True)

    for key in (OLD, OLDER):
        assert fernet.decrypt(Fernet(key).encrypt(b"iban")) == b"iban"
    assert fernet.decrypt(new) == fernet.decrypt(new.decode()) == b"iban"


def test_rotate_moves_a_token_and_keeps_its_time(world, fernet):
    """
    A stored token is moved to the ring, with the time at which it was made.
    """
    made = int(world.clock.now().timestamp()) - 500
    old = Fernet(OLDER).encrypt_at_time(b"iban", made)

    moved = fernet.rotate(old)

    assert moved.startswith(b"CfDJ8")
    assert fernet.decrypt(moved) == b"iban"
    assert fernet.extract_timestamp(moved) == fernet.extract_timestamp(old) == made
    assert fernet.extract_timestamp(fernet.rotate(moved)) == made


def test_ttl_holds_for_new_and_old(world, fernet):
    """
    A token is good until its ttl is over, whichever it is.
    """
    made = int(world.clock.now().timestamp())
    tokens = [fernet.encrypt(b"x"), Fernet(OLD).encrypt_at_time(b"x", made)]
    world.clock.advance(timedelta(seconds=60))

    assert [b"x", b"x"] == [fernet.decrypt(token, ttl=60) for token in tokens]
    world.clock.advance(timedelta(seconds=1))
    for token in tokens:
        with pytest.raises(InvalidToken):
            fernet.decrypt(token, ttl=60)


@pytest.mark.parametrize(
    "spoil",
    [lambda t: t[:-4] + b"AAAA", lambda t: t[:9], lambda t: b"", lambda t: b"\xff"],
)
def test_bad_tokens_raise_what_they_always_raised(fernet, spoil):
    """
    A token that was changed raises the same class as Fernet's, new or old.
    """
    for token in (fernet.encrypt(b"iban"), Fernet(OLD).encrypt(b"iban")):
        assert fernet.decrypt(token) == b"iban"
        with pytest.raises(TheirInvalidToken):
            fernet.decrypt(spoil(token))


def test_foreign_keys_purposes_and_times_gone_are_refused(world, fernet):
    """
    Another Fernet key, another purpose, and any old key once none is given, open nothing.
    """
    ring = world.ring()
    foreign = Fernet(Fernet.generate_key()).encrypt(b"x")
    other = RingFernet(ring, purpose="mail").encrypt(b"x")
    moved = RingFernet(ring)

    assert moved.decrypt(fernet.encrypt(b"x")) == b"x"
    for opener, token in [
        (fernet, foreign),
        (fernet, other),
        (moved, Fernet(OLD).encrypt(b"x")),
    ]:
        with pytest.raises(InvalidToken):
            opener.decrypt(token)


def test_what_is_no_key_is_refused_and_not_quoted(world):
    """
    A malformed old key is an error at start that does not hold it.
    """
    with pytest.raises(InvalidKeyError) as caught:
        RingFernet(world.ring(), old=["secret-but-short"])

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_outage_is_not_an_invalid_token(world):
    """
    While the ring cannot be asked, a sound token is an outage.
    """
    blue, green = world.ring(), world.ring()
    blue.rotate(immediate=True)
    token = RingFernet(blue).encrypt(b"x")
    world.store.fault = StoreError("down", transient=True)

    with pytest.raises(ProtectionError) as caught:
        RingFernet(green).decrypt(token)

    assert caught.value.transient
