"""
The attack J9, and J4 and K14 as far as they concern keys. Each refusal has an accepted twin.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS, CURVES
from kagimori.crypto.digests import b64url_decode, b64url_encode
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.crypto.key_strength import rsa_weakness
from kagimori.crypto.signatures import signer, verifier
from kagimori.errors import InvalidKeyError

ALL = tuple(ALGORITHMS)
WYCHEPROOF = Path(__file__).parents[1] / "vectors" / "wycheproof"


def _wycheproof_key(comment: str) -> dict[str, Any]:
    document = json.loads((WYCHEPROOF / "json_web_key_test.json").read_text())
    for group in document["testGroups"]:
        if group["comment"] == comment:
            return group["private"]["keys"][0]
    raise LookupError(comment)


def _public(members: dict[str, Any]) -> dict[str, Any]:
    hidden = {"d", "p", "q", "dp", "dq", "qi"}
    return {name: value for name, value in members.items() if name not in hidden}


@pytest.mark.parametrize(
    ("comment", "reason"),
    [
        ("keysize_too_small", "shorter than 2048"),
        ("exponentOne", "exponent"),
        ("jws_rsa_roca_key", "ROCA"),
    ],
)
def test_J9_known_weak_rsa_keys_are_refused(comment, reason):
    """
    1024 bits, exponent 1 and a ROCA modulus are refused, public and private, trusted or not.
    """
    members = _wycheproof_key(comment)
    for made in (Jwk.from_dict, Jwk.from_trusted_dict):
        for half in (members, _public(members)):
            with pytest.raises(InvalidKeyError, match=reason):
                made(half)
    assert Jwk.from_dict(_wycheproof_key("rs256")).is_private


def _integer(text: str) -> int:
    return int.from_bytes(b64url_decode(text), "big")


def _text(value: int) -> str:
    return b64url_encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@pytest.mark.parametrize(
    "change",
    [
        {"e": _text(1)},
        {"e": _text(2)},
        {"e": _text(65536)},
        {"e": _text(2**64 + 1)},
        {"e": "AAEAAQ"},
        {"e": ""},
        {"e": "AA"},
        {"e": 65537},
        {"n": lambda n: _text(n - 1)},
        {"n": lambda n: _text((n >> 2) * 6 + 3)},
        {"n": lambda n: _text(n * n * n * n * n)},
        {"n": lambda n: "AA" + _text(n)},
        {"n": lambda n: b64url_encode(b"\0" + b64url_decode(_text(n)))},
        {"n": ""},
        {"n": None},
        {"kty": "EC"},
        {"kty": "rsa"},
        {"kty": ["RSA"]},
        {"kty": None},
        {"alg": "ES256"},
        {"alg": "HS256"},
        {"alg": "RSA-OAEP"},
        {"alg": "rs256"},
        {"alg": None},
        {"alg": ["RS256"]},
        {"p": "AQAB"},
    ],
)
def test_J9_weak_and_malformed_rsa_keys_are_refused(keys, change):
    """
    Weak exponents, moduli with small factors or of absurd length, second spellings: refused.
    """
    members = keys["RS256"].to_dict()
    ((name, value),) = change.items()
    members[name] = value(_integer(members["n"])) if callable(value) else value
    with pytest.raises(InvalidKeyError):
        Jwk.from_dict(members)

    assert Jwk.from_dict(keys["RS256"].to_dict()).algorithms == ("RS256",)


def test_J9_K14_inconsistent_rsa_private_keys_are_refused(keys):
    """
    A private RSA key with any member of another key, incomplete, or of three primes: refused.
    """
    members = keys["RS256"].to_dict(private=True)
    other = Jwk.generate("RS256").to_dict(private=True)
    wrong = [members | {name: other[name]} for name in ("n", "d", "p", "dp", "qi")]
    wrong += [
        {name: value for name, value in members.items() if name != missing}
        for missing in ("p", "q", "dp", "dq", "qi", "d")
    ]
    wrong.append(members | {"oth": []})
    for one in wrong:
        with pytest.raises(InvalidKeyError):
            Jwk.from_dict(one)

    assert Jwk.from_dict(members).is_private


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512"])
def test_J9_points_off_the_curve_are_refused(keys, alg):
    """
    Off the curve, at infinity, beyond the field, of wrong length, on another curve: refused.
    """
    members = keys[alg].to_dict()
    size = CURVES[members["crv"]].size
    x, y = _integer(members["x"]), _integer(members["y"])
    zero = b64url_encode(bytes(size))

    def fixed(value: int) -> str:
        return b64url_encode((value % 256**size).to_bytes(size, "big"))

    wrong = [
        {"y": fixed(y + 1)},
        {"x": fixed(x + 1)},
        {"x": zero, "y": zero},
        {"x": zero},
        {"x": fixed(-1), "y": fixed(-1)},
        {"x": members["y"], "y": members["x"]},
        {"x": b64url_encode(b"\0" + b64url_decode(members["x"]))},
        {"x": b64url_encode(b64url_decode(members["x"])[1:])},
        {"x": ""},
        {"x": members["x"] + "="},
        {"x": None},
        {"y": None},
        *({"crv": name} for name in CURVES if name != members["crv"]),
        {"crv": "secp256k1"},
        {"crv": "p-256"},
        {"crv": ["P-256"]},
        *({"alg": other} for other in ("ES256", "ES384", "ES512") if other != alg),
        {"alg": "ECDH-ES"},
        {"kty": "OKP"},
    ]
    for change in wrong:
        with pytest.raises(InvalidKeyError):
            Jwk.from_dict(members | change)

    assert Jwk.from_dict(members).algorithms == (alg,)


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512"])
def test_J9_K14_ec_private_keys_that_do_not_match_are_refused(keys, alg):
    """
    Another key's number, zero, the order and a wrong length are refused, trusted or not.
    """
    members = keys[alg].to_dict(private=True)
    curve = CURVES[members["crv"]]
    other = Jwk.generate(alg).to_dict(private=True)["d"]
    wrong = [
        other,
        b64url_encode(bytes(curve.size)),
        b64url_encode(curve.order.to_bytes(curve.size, "big")),
        b64url_encode(b64url_decode(members["d"])[:-1]),
        "",
        None,
    ]
    for secret in wrong:
        for made in (Jwk.from_dict, Jwk.from_trusted_dict):
            with pytest.raises(InvalidKeyError):
                made(members | {"d": secret})

    assert Jwk.from_trusted_dict(members).is_private


SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
NOT_CANONICAL = [
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
# y = 2 is the y coordinate of no point.
OFF_CURVE = ["0200000000000000000000000000000000000000000000000000000000000000"]


@pytest.mark.parametrize("encoded", SMALL_ORDER + NOT_CANONICAL + OFF_CURVE)
def test_J9_bad_ed25519_points_are_refused(keys, encoded):
    """
    Points of small order, second spellings of a point, and what is no point are refused.
    """
    members = keys["Ed25519"].to_dict()
    with pytest.raises(InvalidKeyError, match="Ed25519"):
        Jwk.from_dict(members | {"x": b64url_encode(bytes.fromhex(encoded))})

    assert Jwk.from_dict(members).algorithms == ("Ed25519",)


def test_J9_K14_other_bad_ed25519_keys_are_refused(keys):
    """
    Wrong length, another curve, and halves of two keys are refused.
    """
    members = keys["Ed25519"].to_dict(private=True)
    other = Jwk.generate("Ed25519").to_dict(private=True)
    for change in (
        {"x": members["x"][:-1]},
        {"x": b64url_encode(b64url_decode(members["x"]) + b"\0")},
        {"crv": "X25519"},
        {"crv": "Ed448"},
        {"crv": None},
        {"x": other["x"]},
        {"d": other["d"]},
        {"d": ""},
        {"alg": "ES256"},
    ):
        with pytest.raises(InvalidKeyError):
            Jwk.from_dict(members | change)

    assert Jwk.from_dict(members).is_private


@pytest.mark.parametrize(
    "members",
    [
        {"kty": "oct", "k": "A" * 43},
        {"kty": "oct", "k": "AAAA", "alg": "HS256"},
        {"kty": "oct", "k": "A" * 43, "alg": "HS256", "use": "sig", "kid": "1"},
        {"kty": "oct"},
    ],
)
def test_J9_symmetric_keys_are_refused(members):
    """
    A symmetric key is refused alone and in a set, whatever its length.
    """
    with pytest.raises(InvalidKeyError):
        Jwk.from_dict(members)
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict({"keys": [members]})


@pytest.mark.parametrize(
    "purpose",
    [
        {"use": "enc"},
        {"use": "SIG"},
        {"use": ""},
        {"use": None},
        {"use": ["sig"]},
        {"key_ops": []},
        {"key_ops": ["encrypt"]},
        {"key_ops": ["deriveKey", "deriveBits"]},
        {"key_ops": ["verify", "encrypt"]},
        {"key_ops": ["sign"]},
        {"key_ops": ["verify", "verify"]},
        {"key_ops": "verify"},
        {"key_ops": None},
        {"key_ops": [1]},
        {"key_ops": [["verify"]]},
        {"use": "sig", "key_ops": ["wrapKey"]},
        {"use": "enc", "key_ops": ["verify"]},
    ],
)
def test_J9_keys_of_another_purpose_are_refused_at_import(keys, purpose):
    """
    A public key that is not for verifying signatures is refused, alone and in a set.
    """
    members = keys["ES256"].to_dict()
    del members["use"]
    for sound in ({}, {"use": "sig"}, {"key_ops": ["verify"]}):
        assert Jwk.from_dict(members | sound).algorithms == ("ES256",)
    with pytest.raises(InvalidKeyError):
        Jwk.from_dict(members | purpose)
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict({"keys": [members | purpose]})


def test_J9_a_private_key_does_only_what_its_key_ops_say(keys):
    """
    A key for signing does not verify and the reverse; its public half verifies.
    """
    members = keys["ES256"].to_dict(private=True)
    signing = Jwk.from_dict(members | {"key_ops": ["sign"]})
    verifying = Jwk.from_dict(members | {"key_ops": ["verify"]})
    text = jws.sign(b"payload", signing)

    for able in (signing.public(), verifying):
        assert jws.verify(text, able, algorithms=ALL).payload == b"payload"
    with pytest.raises(InvalidKeyError):
        jws.verify(text, signing, algorithms=ALL)
    with pytest.raises(InvalidKeyError):
        jws.sign(b"payload", verifying)


@pytest.mark.parametrize(
    "kid", ["", "x" * 257, "a\nb", "a\0b", "\x1b[31m", "\u202ex", 1, None, ["a"], {}]
)
def test_J4_a_key_with_an_unprintable_name_is_refused(keys, kid):
    """
    A kid is a short printable text, or the key is refused.
    """
    members = keys["ES256"].to_dict()
    for sound in ("x" * 256, "a b/../c", "鍵"):
        assert Jwk.from_dict(members | {"kid": sound}).kid == sound
    with pytest.raises(InvalidKeyError):
        Jwk.from_dict(members | {"kid": kid})


# --- the checks by themselves --------------------------------------------------------------


@pytest.mark.parametrize("bits", [1024, 2047, 8193, 16384])
def test_J9_the_length_of_a_modulus_is_bounded_both_ways(keys, bits):
    """
    Too short and too long moduli are refused for their length.
    """
    reason = rsa_weakness(2**bits - 1, 65537)

    assert reason is not None
    assert reason.endswith("bits.")
    assert rsa_weakness(_integer(keys["RS256"].to_dict()["n"]), 65537) is None


@pytest.mark.parametrize("alg", ["ES256", "RS256", "Ed25519"])
def test_J1_a_key_of_another_type_gets_no_function(keys, alg):
    """
    Key and algorithm are matched once more where the functions are made.
    """
    public = keys[alg]._public
    private = keys[alg]._private
    unfit = ALGORITHMS["RS256" if alg != "RS256" else "ES256"]

    assert signer(private, ALGORITHMS[alg])(b"message")
    assert verifier(public, ALGORITHMS[alg])
    with pytest.raises(InvalidKeyError):
        signer(private, unfit)
    with pytest.raises(InvalidKeyError):
        verifier(public, unfit)
