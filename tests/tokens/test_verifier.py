from __future__ import annotations

import base64
import json
import pickle
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.clock import seconds
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.errors import (
    ConfigError,
    ExpiredTokenError,
    InvalidKeyError,
    InvalidTokenError,
)
from kagimori.testing.clock import FixedClock
from kagimori.tokens.verifier import TokenVerifier
from tests.tokens.signing import (
    AUDIENCE,
    ISSUER,
    KEY,
    KEYS,
    NOW,
    REMOVED,
    claims,
    sign,
    verifier,
)

SECOND = timedelta(seconds=1)
OTHER = Jwk.generate("ES256")
RSA = Jwk.generate("RS256")
T = seconds(NOW)


def refused(token, **fields):
    with pytest.raises(InvalidTokenError) as caught:
        verifier(**fields).verify(token, now=NOW)
    assert type(caught.value) is InvalidTokenError
    assert "The access token is not valid." == caught.value.text
    return caught.value


def test_a_sound_token_says_what_was_signed():
    """
    The claims come back, typed where a decision may rest on them.
    """
    extra = {"fid": "f", "sid": "s", "acr": "1", "nested": {"a": [1, {"b": "c"}]}}
    token = verifier().verify(sign(claims(**extra)), now=NOW)

    assert (ISSUER, "u_1", "app", "t_1") == (
        token.issuer,
        token.subject,
        token.client_id,
        token.token_id,
    )
    assert (AUDIENCE,) == token.audience
    assert {"read", "write"} == token.scope
    assert ("f", "s") == (token.family_id, token.session_id)
    assert (NOW, NOW + timedelta(minutes=10)) == (token.issued_at, token.expires_at)
    assert claims(**extra) == dict(token.claims)
    with pytest.raises(TypeError):
        token.claims["sub"] = "u_2"


# --- kinds of token (J6, JAT-3) ------------------------------------------------------------

KINDS = ["JWT", "jwt", "logout+jwt", "dpop+jwt", "oauth-authz-req+jwt", "AT+JWT", None]


@pytest.mark.parametrize("typ", KINDS)
def test_J6_another_kind_of_token_is_refused(typ):
    """
    J6: the same claims under another typ, an ID token's among them, are no access token.
    """
    assert refused(sign(claims(), typ=typ))


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt"])
def test_J6_both_spellings_of_the_kind_are_accepted(typ):
    """
    RFC 9068 section 4 names two values of typ.
    """
    assert verifier().verify(sign(claims(), typ=typ), now=NOW)


def test_JAT3_an_id_token_is_no_access_token():
    """
    JAT-3: an ID token (aud = client, typ JWT) is refused, also were its typ changed.
    """
    id_token = claims(aud="app", client_id=REMOVED, jti=REMOVED, nonce="n")

    assert refused(sign(id_token, typ="JWT"))
    assert refused(sign(id_token))
    assert refused(sign(claims(aud="app")))


@pytest.mark.parametrize(
    "name", ["iss", "sub", "aud", "client_id", "exp", "iat", "jti"]
)
def test_J6_every_required_claim_is_required(name):
    """
    RFC 9068 section 2.2: a token without one of its seven claims is refused.
    """
    assert refused(sign(claims(**{name: REMOVED})))
    assert verifier().verify(sign(claims()), now=NOW)


# --- issuer and audience (J7, JAT-4) -------------------------------------------------------

LOOK_ALIKES = [
    ISSUER + "/",
    ISSUER.replace("id", "ID"),
    ISSUER + ":443",
    ISSUER.replace("https", "http"),
    ISSUER.replace("//", "//user@"),
    ISSUER + "/t/other",
    ISSUER + "?",
    ISSUER + "\u200b",
    " " + ISSUER,
    "",
]


@pytest.mark.parametrize("issuer", LOOK_ALIKES)
def test_J7_a_look_alike_issuer_is_refused(issuer):
    """
    J7: the issuer is compared byte for byte.
    """
    assert refused(sign(claims(iss=issuer)))


def test_J7_earlier_addresses_may_be_accepted():
    """
    Several issuers are accepted where the installation had them, and no others.
    """
    both = {"issuer": (ISSUER, "http://localhost:3000")}

    assert verifier(**both).verify(sign(claims(iss="http://localhost:3000")), now=NOW)
    assert verifier(**both).verify(sign(claims()), now=NOW)
    assert refused(sign(claims(iss="http://localhost:3001")), **both)


@pytest.mark.parametrize("aud", [[AUDIENCE], ["urn:x", AUDIENCE], AUDIENCE])
def test_JAT4_our_audience_among_several(aud):
    """
    JAT-4: `aud` may be a text or an array; it has to contain us.
    """
    assert AUDIENCE in verifier().verify(sign(claims(aud=aud)), now=NOW).audience


@pytest.mark.parametrize(
    "aud",
    [
        "urn:x",
        [],
        ["urn:x"],
        "",
        [""],
        [AUDIENCE, 1],
        {AUDIENCE: 1},
        None,
        AUDIENCE + "/",
    ],
)
def test_JAT4_not_our_audience(aud):
    """
    JAT-4: another audience, or something that is none, is refused.
    """
    assert refused(sign(claims(aud=aud)))


def test_the_audience_may_be_left_to_the_caller_by_name_only():
    """
    Forgetting the audience is an error; leaving it out takes a named argument.
    """
    open_to_all = verifier(audience=None, allow_any_audience=True)

    assert open_to_all.verify(sign(claims(aud="urn:x")), now=NOW).audience == ("urn:x",)
    for fields in ({"audience": None}, {"audience": ()}, {"allow_any_audience": True}):
        with pytest.raises(ConfigError):
            verifier(**fields)


# --- keys (J1 to J4) -----------------------------------------------------------------------


def test_JAT4_another_key_is_refused():
    """
    A signature by a key that is not in the set fails, under its own kid and under ours.
    """
    stolen = {"kid": KEY.kid}
    foreign = Jwk.from_dict(OTHER.to_dict(private=True) | stolen)

    assert refused(sign(claims(), key=OTHER))
    assert refused(sign(claims(), key=foreign))


def test_JAT1_a_token_without_kid_is_refused():
    """
    JAT-1: kid has to be there even where one key could be guessed.
    """
    members = KEY.to_dict(private=True)
    del members["kid"]

    assert refused(sign(claims(), key=Jwk.from_dict(members)))


def test_J3_keys_in_the_header_are_ignored():
    """
    J3: jwk, jku and x5u of the attacker are never looked at; ours with them still verifies.
    """
    members = {"jwk": OTHER.to_dict(), "jku": "https://evil.example/keys", "x5u": "x"}

    assert refused(sign(claims(), key=OTHER, **members))
    assert verifier().verify(sign(claims(), **members), now=NOW)


def test_JAT4_algorithms_can_be_narrowed():
    """
    JAT-4: what is not on the list is refused, though the key is ours.
    """
    keys = JwkSet.of([KEY.public(), RSA.public()])

    assert verifier(keys).verify(sign(claims(), key=RSA), now=NOW)
    assert refused(sign(claims(), key=RSA), keys=keys, algorithms=["ES256"])


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "", None, ["ES256"], 1])
def test_J2_no_other_algorithm_gets_in(alg):
    """
    J1, J2: none, HMAC and what is no name are refused whatever the signature.
    """
    _header, payload, signature = sign(claims()).split(".")
    forged = base64.urlsafe_b64encode(
        json.dumps({"alg": alg, "typ": "at+jwt", "kid": KEY.kid}).encode()
    )
    for last in (signature, ""):
        assert refused(f"{forged.decode().rstrip('=')}.{payload}.{last}")


def test_keys_may_come_from_a_function_and_change():
    """
    A ring hands out the present set: a key that left it no longer verifies.
    """
    present = [KEYS]
    live = verifier(lambda: present[0])
    token = sign(claims())

    assert live.verify(token, now=NOW)
    present[0] = JwkSet.of([OTHER.public()])
    with pytest.raises(InvalidTokenError):
        live.verify(token, now=NOW)


def test_a_jwks_document_is_enough():
    """
    `from_jwks` takes a document, and refuses a bad one when it is made.
    """
    document = {"keys": [KEY.public().to_dict(), RSA.public().to_dict()]}
    offline = TokenVerifier.from_jwks(document, issuer=ISSUER, audience=AUDIENCE)

    assert offline.verify(sign(claims(), key=RSA), now=NOW)
    with pytest.raises(InvalidKeyError):
        TokenVerifier.from_jwks(
            {"keys": [KEY.public().to_dict()] * 2}, issuer=ISSUER, audience=AUDIENCE
        )


# --- time (JAT-5) --------------------------------------------------------------------------

TIMES = [
    ("fresh", 0, {}, None),
    ("last moment", 599.999, {}, None),
    ("at exp", 600, {}, ExpiredTokenError),
    ("in the leeway", 629.999, {"leeway": 30 * SECOND}, None),
    ("past the leeway", 630, {"leeway": 30 * SECOND}, ExpiredTokenError),
    ("10 s early", -10, {}, None),
    ("11 s early", -11, {}, InvalidTokenError),
    ("11 s early with leeway", -11, {"leeway": 60 * SECOND}, InvalidTokenError),
]


@pytest.mark.parametrize(
    ("name", "at", "fields", "error"), TIMES, ids=[row[0] for row in TIMES]
)
def test_JAT5_time(name, at, fields, error):
    """
    JAT-5: exp without tolerance here, up to a minute elsewhere; iat 10 s ahead at most.
    """
    now = NOW + timedelta(seconds=at)
    token = sign(claims())

    if error is None:
        assert verifier(**fields).verify(token, now=now)
        return
    with pytest.raises(error) as caught:
        verifier(**fields).verify(token, now=now)
    assert error is type(caught.value)


def test_JAT5_nbf_is_honoured():
    """
    JAT-5: a token that is not valid yet is refused; 10 s ahead it is accepted.
    """
    assert refused(sign(claims(nbf=T + 11)))
    assert verifier().verify(sign(claims(nbf=T + 10)), now=NOW)


def test_JAT5_leeway_at_other_verifiers():
    """
    JAT-5: 30 s by default away from the installation, 0 to 60 by choice.
    """
    document = {"keys": [KEY.public().to_dict()]}
    at_29 = NOW + timedelta(seconds=629)

    def offline(**fields):
        return TokenVerifier.from_jwks(
            document, issuer=ISSUER, audience=AUDIENCE, **fields
        )

    assert offline().verify(sign(claims()), now=at_29)
    with pytest.raises(ExpiredTokenError):
        offline(leeway=timedelta()).verify(sign(claims()), now=at_29)
    with pytest.raises(ExpiredTokenError):
        verifier().verify(sign(claims()), now=at_29)
    for wrong in (-SECOND, 61 * SECOND):
        with pytest.raises(ConfigError):
            offline(leeway=wrong)


def test_the_clock_is_asked_where_no_time_is_given():
    """
    A caller that gives no time gets the verifier's clock.
    """
    clock = FixedClock(NOW)
    live = verifier(clock=clock)
    token = sign(claims())

    assert live.verify(token)
    clock.advance(timedelta(minutes=10))
    with pytest.raises(ExpiredTokenError):
        live.verify(token)
    with pytest.raises(InvalidTokenError):
        # The machine's own clock stands years before 2030.
        verifier().verify(sign(claims(iat=T + 10**9, exp=T + 10**9 + 1)))


# --- the text itself (J8, J14) -------------------------------------------------------------

BODY = json.dumps(claims())
STRANGE = {
    "exp as text": claims(exp=str(T + 600)),
    "exp as float": BODY.replace(str(T + 600), f"{T + 600}.0"),
    "exp with exponent": BODY.replace(str(T + 600), "1e10"),
    "exp huge": claims(exp=10**30),
    "exp beyond any date": claims(exp=253402300800),
    "exp negative": claims(exp=-1),
    "exp true": claims(exp=True),
    "exp null": claims(exp=None),
    "exp NaN": BODY.replace(str(T + 600), "NaN"),
    "exp Infinity": BODY.replace(str(T + 600), "Infinity"),
    "iat as float": BODY.replace(f'"iat": {T}', f'"iat": {T}.5'),
    "nbf as text": claims(nbf="0"),
    "sub empty": claims(sub=""),
    "sub number": claims(sub=1),
    "scope array": claims(scope=["read"]),
    "fid number": claims(fid=1),
    "jti null": claims(jti=None),
    "sub enormous": claims(sub="x" * 3000),
    "65 audiences": claims(aud=[AUDIENCE] * 65),
    "a member named twice": BODY[:-1] + ', "sub": "u_2"}',
    "twice the same": BODY[:-1] + f', "aud": "{AUDIENCE}"}}',
    "twice by an escape": BODY[:-1] + ', "s\\u0075b": "u_2"}',
    "twice within": BODY[:-1] + ', "x": {"a": 1, "a": 2}}',
    "twice within an array": BODY[:-1] + ', "x": [[{"a": "b", "a": "b"}]]}',
    "deep": BODY[:-1] + ', "x": ' + "[" * 3000 + "]" * 3000 + "}",
    "array": "[" + BODY + "]",
    "text": json.dumps(BODY),
    "empty": "",
    "trailing": BODY + "{}",
    "not UTF-8": BODY.encode() + b"\xff",
    "bad text": BODY[:-1].encode() + b', "x": "\xff"}',
    "byte order mark": b"\xef\xbb\xbf" + BODY.encode(),
    "UTF-16": BODY.encode("utf-16"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_J8_claims_that_two_programs_could_read_differently(name):
    """
    J8: wrong types, members named twice and strange encodings are refused, though signed by us.
    """
    payload = STRANGE[name]
    if isinstance(payload, str):
        payload = payload.encode()

    assert refused(sign(payload))


FINE = {
    "blanks": BODY.replace(": ", " :\n\t "),
    "escapes": BODY[:-1] + ', "x": "a\\"b\\\\"}',
    "colons and quotes in texts": BODY[:-1] + ', "x": [":", ": ,", ""], "": {"": ""}}',
    "other scripts": BODY[:-1] + ', "name": "鍵守"}',
    "numbers in unknown claims": BODY[:-1] + ', "x": [1.5, -1, null, true]}',
}


@pytest.mark.parametrize("name", FINE)
def test_J8_what_is_merely_unusual_is_accepted(name):
    """
    The twin of the refusals: odd but unambiguous claims are read as they are.
    """
    token = verifier().verify(sign(FINE[name].encode()), now=NOW)

    assert json.loads(FINE[name]) == dict(token.claims)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.booleans())
def test_J8_any_extra_claims_are_read_exactly(extra, ascii_only):
    """
    Whatever else a token says is read as the standard library reads it, or refused.
    """
    extra = {name: value for name, value in extra.items() if name not in claims()}
    extra.pop("nbf", None), extra.pop("fid", None), extra.pop("sid", None)
    payload = json.dumps(extra | claims(), ensure_ascii=ascii_only)
    try:
        raw = payload.encode()
    except UnicodeEncodeError:
        return

    try:
        token = verifier().verify(sign(raw), now=NOW)
    except InvalidTokenError:
        # Lone surrogates cannot be written out again; too many brackets are too deep.
        assert "\\ud" in payload or payload.count("[") + payload.count("{") > 64
        return
    assert json.loads(payload) == dict(token.claims)


@given(st.data())
def test_J8_an_altered_token_is_refused(data):
    """
    Any one character changed, dropped or added makes the token invalid.
    """
    token = sign(claims())
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("AaZz09-_.=+/ \n\0é"))
    for altered in (
        token[:at] + other + token[at + 1 :],
        token[:at] + token[at + 1 :],
        token[:at] + other + token[at:],
    ):
        if altered != token:
            with pytest.raises(InvalidTokenError):
                verifier().verify(altered, now=NOW)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "a.b.c.d.e", "kgm_rt_x", "\ud800"]
)
def test_BEA5_what_is_no_token_is_refused_not_crashed_on(text):
    """
    BEA-5: a token that cannot be parsed is an invalid token.
    """
    assert refused(text)


def test_J14_a_long_token_is_refused_by_its_length():
    """
    J14: beyond 16 KiB nothing is decoded; just below it is.
    """
    assert verifier().verify(sign(claims(x="a" * 10_000)), now=NOW)
    assert refused(sign(claims(x="a" * 13_000)))
    assert refused("a" * 10_000_000)


# --- as an object --------------------------------------------------------------------------

WRONG = [
    {"issuer": ()},
    {"issuer": ""},
    {"audience": ("", "x")},
    {"algorithms": ()},
    {"algorithms": ["HS256"]},
    {"algorithms": ["none"]},
]


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_a_verifier_that_could_not_be_right_is_not_made(fields):
    """
    Wrong arguments are refused when the verifier is made, not when a token comes.
    """
    with pytest.raises(ConfigError):
        verifier(**fields)


def test_K9_errors_and_reprs_quote_no_token():
    """
    K9: neither the error of a refused token nor the verified one shows its text.
    """
    sound = sign(claims(secret="canary-value"))
    broken = sign(BODY[:-1].encode() + b', "sub": "canary-value"}')

    token = verifier().verify(sound, now=NOW)
    error = refused(broken)

    shown = f"{token!r} {error!r} {error} {error.detail} {error.__cause__}"
    assert "canary" not in shown
    assert sound.split(".")[2] not in shown
    with pytest.raises(TypeError):
        pickle.dumps(verifier())
