"""
Two independent implementations read what we sign, and we read what they sign.
"""

from __future__ import annotations

import jwt
import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws

from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.jwk import Jwk
from kagimori.errors import InvalidJwsError

# joserfc warns that the older name of Ed25519 is deprecated; many issuers still use it.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

PAYLOAD = b'{"sub":"\xe9\x8d\xb5\xe5\xae\x88","n":0}'

# PyJWT does not know the newer name yet.
PYJWT_NAMES = [name for name in ALGORITHMS if name != "Ed25519"]


def _another(alg: str, keys: dict[str, Jwk]) -> Jwk:
    return keys["ES256" if alg != "ES256" else "ES384"]


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_joserfc_reads_what_we_sign(alg, keys):
    """
    Our token is accepted by joserfc under our public JWK, its header as we wrote it.
    """
    key = joserfc_jwk.import_key(keys[alg].to_dict())
    text = jws.sign(PAYLOAD, keys[alg], header={"typ": "at+jwt"})
    read = joserfc_jws.deserialize_compact(text, key, algorithms=[alg])

    assert read.payload == PAYLOAD
    assert read.headers() == {"alg": alg, "kid": alg, "typ": "at+jwt"}


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_we_read_what_joserfc_signs(alg, keys):
    """
    We accept a token that joserfc signed with our private JWK, and not under another key.
    """
    key = joserfc_jwk.import_key(keys[alg].to_dict(private=True))
    text = joserfc_jws.serialize_compact({"alg": alg}, PAYLOAD, key, algorithms=[alg])

    assert jws.verify(text, keys[alg].public(), algorithms=[alg]).payload == PAYLOAD
    with pytest.raises(InvalidJwsError):
        jws.verify(text, _another(alg, keys), algorithms=list(ALGORITHMS))


@pytest.mark.parametrize("alg", PYJWT_NAMES)
def test_pyjwt_reads_what_we_sign(alg, keys):
    """
    PyJWT accepts our token under our public JWK.
    """
    key = jwt.PyJWK(keys[alg].to_dict())
    text = jws.sign(PAYLOAD, keys[alg])

    assert jwt.PyJWS().decode(text, key, algorithms=[alg]) == PAYLOAD


@pytest.mark.parametrize("alg", PYJWT_NAMES)
def test_we_read_what_pyjwt_signs(alg, keys):
    """
    We accept a token that PyJWT signed with our private JWK, and not under another key.
    """
    key = jwt.PyJWK(keys[alg].to_dict(private=True))
    text = jwt.PyJWS().encode(PAYLOAD, key.key, algorithm=alg)

    assert jws.verify(text, keys[alg].public(), algorithms=[alg]).payload == PAYLOAD
    with pytest.raises(InvalidJwsError):
        jws.verify(text, _another(alg, keys), algorithms=list(ALGORITHMS))


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "RS256", "Ed25519"])
def test_joserfc_and_we_agree_on_thumbprints(alg, keys):
    """
    Both sides compute one RFC 7638 thumbprint for a key.
    """
    key = joserfc_jwk.import_key(keys[alg].to_dict())

    assert key.thumbprint() == keys[alg].thumbprint()
