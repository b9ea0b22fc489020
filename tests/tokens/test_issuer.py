from __future__ import annotations

import asyncio
import pickle
from datetime import timedelta

import jwt
import pytest

from kagimori.clock import from_seconds, seconds
from kagimori.crypto import jws
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.errors import SigningUnavailableError
from kagimori.tokens.claims import AccessTokenClaims
from kagimori.tokens.issuer import TokenIssuer
from tests.tokens.signing import AUDIENCE, ISSUER, NOW, verifier

KEYS = {alg: Jwk.generate(alg) for alg in ("ES256", "RS256", "Ed25519")}
CLAIMS = AccessTokenClaims(
    issuer=ISSUER,
    subject="u_1",
    audience=AUDIENCE,
    client="app",
    lifetime=timedelta(minutes=10),
)


class Keys:
    """
    The signing keys of a tenant, and what was asked of them.
    """

    def __init__(self, fails=False):
        self.asked = []
        self.fails = fails

    async def signing_key(self, tenant, algorithm, now, until):
        self.asked.append((tenant, algorithm, now, until))
        if self.fails:
            raise SigningUnavailableError("The vault does not answer.")
        from kagimori.keys.key import SigningKey

        key = KEYS[algorithm or "ES256"]
        return SigningKey(key.kid, algorithm or "ES256", None, key.public(), key)


def issue(claims=CLAIMS, algorithm=None, keys=None, now=NOW):
    issuer = TokenIssuer(keys or Keys())
    return asyncio.run(
        issuer.access_token(claims, tenant="default", algorithm=algorithm, now=now)
    )


def decoded(token, algorithm="ES256"):
    """
    Return header and claims as an independent library reads them.
    """
    pem = KEYS[algorithm].public().to_dict()
    name = "EdDSA" if algorithm == "Ed25519" else algorithm
    key = jwt.PyJWK.from_dict(pem, algorithm=name).key
    header = jwt.get_unverified_header(token.text)
    if algorithm == "Ed25519":
        return header, None
    return header, jwt.decode(
        token.text,
        key,
        algorithms=[name],
        audience=AUDIENCE,
        options={"verify_exp": False, "verify_iat": False},
    )


@pytest.mark.parametrize("algorithm", KEYS)
def test_JAT1_header(algorithm):
    """
    JAT-1: typ at+jwt, the key's id, the resource's algorithm.
    """
    header, _ = decoded(issue(algorithm=algorithm), algorithm)

    assert {"typ": "at+jwt", "kid": KEYS[algorithm].kid, "alg": algorithm} == header


def test_JAT2_claims():
    """
    JAT-2: the required claims and no others where nothing else is known.
    """
    token = issue()
    _, claims = decoded(token)

    assert {
        "iss": ISSUER,
        "sub": "u_1",
        "aud": AUDIENCE,
        "client_id": "app",
        "iat": seconds(NOW),
        "exp": seconds(NOW) + 600,
        "jti": token.jti,
    } == claims


def test_JAT2_claims_that_are_known():
    """
    JAT-2: scope, family, session and how the user signed in are there when they are known.
    """
    import msgspec

    known = msgspec.structs.replace(
        CLAIMS,
        scope="read write",
        family="f",
        session="s",
        auth_time=NOW - timedelta(hours=1),
        acr="1",
        amr=("pwd", "otp"),
        username="test",
    )
    _, claims = decoded(issue(known))

    assert {
        "scope": "read write",
        "fid": "f",
        "sid": "s",
        "auth_time": seconds(NOW) - 3600,
        "acr": "1",
        "amr": ["pwd", "otp"],
        "user": "test",
    }.items() <= claims.items()


def test_C1_expires_in_equals_exp_minus_iat_within_any_second():
    """
    ACC-1: a token of 20 s says 20 everywhere, whatever fraction of a second it is.
    """
    import msgspec

    short = msgspec.structs.replace(CLAIMS, lifetime=timedelta(seconds=20.9))
    for fraction in (0, 1, 500_000, 999_999):
        token = issue(short, now=NOW + timedelta(microseconds=fraction))
        _, claims = decoded(token)

        assert 20 == token.expires_in == claims["exp"] - claims["iat"]
        assert seconds(NOW) == claims["iat"]


def test_the_ledger_is_asked_for_the_tokens_own_end():
    """
    K6: the key is reserved until exactly the expiry that the token carries.
    """
    keys = Keys()
    _, claims = decoded(issue(algorithm="ES256", keys=keys))

    assert [("default", "ES256", NOW, from_seconds(claims["exp"]))] == keys.asked


def test_every_token_has_its_own_id():
    """
    JAT-2: jti is random, 128 bits.
    """
    ids = {issue().jti for _ in range(50)}

    assert 50 == len(ids)
    assert {22} == {len(jti) for jti in ids}


def test_what_we_issue_we_accept():
    """
    Issuer and verifier agree; so does `crypto.jws` with an explicit algorithm.
    """
    token = issue()
    keys = JwkSet.of([key.public() for key in KEYS.values()])

    verified = verifier(keys).verify(token.text, now=NOW)

    assert token.jti == verified.token_id
    assert jws.verify(token.text, keys, algorithms=["ES256"]).header["typ"] == "at+jwt"


def test_B5_a_signer_that_fails_is_no_verdict():
    """
    Signing comes last: when it fails the caller may answer 503, and nothing was handed out.
    """
    with pytest.raises(SigningUnavailableError):
        issue(keys=Keys(fails=True))


def test_a_token_that_is_dead_at_birth_is_not_made():
    """
    A lifetime under a second is a mistake of the caller.
    """
    import msgspec

    dead = msgspec.structs.replace(CLAIMS, lifetime=timedelta(seconds=0.9))
    with pytest.raises(ValueError, match="second"):
        issue(dead)


def test_K9_an_issued_token_shows_nothing():
    """
    K9: neither repr nor pickle gives the text away.
    """
    token = issue()

    assert token.text not in repr(token)
    assert token.text.split(".")[2] not in str(token)
    with pytest.raises(TypeError):
        pickle.dumps(token)
