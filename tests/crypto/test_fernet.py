"""
Reading the tokens of Fernet keys.
"""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from kagimori.crypto.fernet import FernetKeys, InvalidToken
from kagimori.errors import InvalidKeyError

KEYS = [Fernet.generate_key(), Fernet.generate_key()]


def test_tokens_of_each_key_open_and_others_do_not():
    """
    Any of the keys opens its tokens; a token that was changed, or is of no key here, is refused.
    """
    keys = FernetKeys(KEYS)

    for key in KEYS:
        token = Fernet(key).encrypt_at_time(b"iban", 1_900_000_000)
        assert keys.decrypt(token) == b"iban"
        assert keys.extract_timestamp(token) == 1_900_000_000
        with pytest.raises(InvalidToken):
            keys.decrypt(token[:-4] + b"AAA=")
    with pytest.raises(InvalidToken):
        keys.decrypt(Fernet(Fernet.generate_key()).encrypt(b"iban"))


def test_what_is_no_key_is_refused_and_not_shown():
    """
    A malformed key is an error that does not quote it, and no repr shows a good one.
    """
    with pytest.raises(InvalidKeyError) as caught:
        FernetKeys(["secret-but-short"])

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert repr(FernetKeys(KEYS)) == "<FernetKeys>"
