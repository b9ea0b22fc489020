"""
Keys: how they are made, read, written and used.
"""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from kagimori.crypto.algorithms import ALGORITHMS, algorithm
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.errors import (
    InvalidJwsError,
    InvalidKeyError,
    KagimoriError,
    UnsupportedAlgorithmError,
)

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
CLEAR = serialization.NoEncryption()


def pem(private, password: bytes | None = None, form=PKCS8) -> bytes:
    """
    Write a private key of the cryptography package as PEM.
    """
    how = serialization.BestAvailableEncryption(password) if password else CLEAR
    return private.private_bytes(PEM, form, how)


# --- the table -----------------------------------------------------------------------------


def test_the_table_is_what_we_offer():
    """
    Eleven names, no HMAC, no none; every name is found under itself only.
    """
    assert list(ALGORITHMS) == [
        *("ES256", "ES384", "ES512"),
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("EdDSA", "Ed25519"),
    ]
    for name in ALGORITHMS:
        assert algorithm(name).name == name


@pytest.mark.parametrize(
    "name",
    ["none", "HS256", "es256", "ES256K", "RSA1_5", "dir", "", None, 1, ["ES256"]],
)
def test_J2_unknown_algorithms_are_refused(name):
    """
    A name that is not in the table, in exactly this spelling, is refused.
    """
    assert algorithm("ES256").curve == "P-256"
    with pytest.raises(UnsupportedAlgorithmError):
        algorithm(name)


# --- making --------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_generated_key_is_private_and_named_by_its_thumbprint(alg):
    """
    A new key signs under its one algorithm and survives being written and read.
    """
    key = Jwk.generate(alg)

    assert key.is_private
    assert key.alg == alg
    assert key.algorithms == (alg,)
    assert key.kid == key.thumbprint()
    assert key.to_dict()["use"] == "sig"
    for again in (
        Jwk.from_dict(key.to_dict(private=True)),
        Jwk.from_trusted_dict(key.to_dict(private=True)),
        Jwk.from_json(json.dumps(key.to_dict(private=True))),
    ):
        assert again == key
        assert again.to_dict(private=True) == key.to_dict(private=True)
        key.public().verify(again.sign(b"message"), b"message")


def test_two_generated_keys_differ():
    """
    No two keys share a thumbprint.
    """
    assert Jwk.generate("ES256") != Jwk.generate("ES256")


@pytest.mark.parametrize("bits", [1024, 2040, 2049, 16384, 0, -1])
def test_J9_generate_refuses_weak_and_odd_lengths(bits):
    """
    An RSA key is 2048 to 8192 bits long, in whole octets.
    """
    assert Jwk.generate("PS256", bits=3072).public().verifier()[1] == 384
    with pytest.raises(InvalidKeyError):
        Jwk.generate("RS256", bits=bits)


@pytest.mark.parametrize("alg", ["none", "HS256", ""])
def test_J2_generate_refuses_unknown_algorithms(alg):
    """
    No key is made for an algorithm outside the table.
    """
    with pytest.raises(UnsupportedAlgorithmError):
        Jwk.generate(alg)


@pytest.mark.parametrize(
    ("members", "algorithms"),
    [
        ("ES256", ("ES256",)),
        ("ES512", ("ES512",)),
        ("RS384", ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("Ed25519", ("EdDSA", "Ed25519")),
    ],
)
def test_a_key_without_alg_may_do_what_its_type_and_curve_allow(
    keys, members, algorithms
):
    """
    The type and curve give the set, the first of it is the default.
    """
    bare = keys[members].to_dict(private=True)
    del bare["alg"]
    key = Jwk.from_dict(bare)

    assert key.alg is None
    assert key.algorithms == algorithms
    key.public().verify(key.sign(b"message"), b"message", algorithms[0])
    for alg in algorithms:
        key.public().verify(key.sign(b"message", alg), b"message", alg)


@pytest.mark.parametrize(
    ("mine", "other"), [("EdDSA", "Ed25519"), ("Ed25519", "EdDSA")]
)
def test_a_key_that_names_one_name_of_ed25519_refuses_the_other(keys, mine, other):
    """
    Both names are one algorithm, but a key's own name is the only one it accepts.
    """
    signature = keys[mine].sign(b"message", mine)
    keys[mine].verify(signature, b"message", mine)
    with pytest.raises(UnsupportedAlgorithmError):
        keys[mine].sign(b"message", other)
    with pytest.raises(UnsupportedAlgorithmError):
        keys[mine].verify(signature, b"message", other)


# --- PEM -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("private", "expected"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
    ],
)
def test_pem_of_an_ec_key_has_its_algorithm(private, expected):
    """
    PKCS #8, traditional, encrypted and public PEM give one key, named by its thumbprint.
    """
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    key = Jwk.from_pem(pem(private))
    public = Jwk.from_pem(
        private.public_key().public_bytes(
            PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )

    assert key.alg == expected
    assert key.kid == key.thumbprint()
    assert key == Jwk.from_pem(pem(private, form=traditional))
    assert key == Jwk.from_pem(pem(private, b"word"), password=b"word")
    assert key.public() == public
    assert not public.is_private


def test_pem_of_an_rsa_key_takes_the_algorithm_named():
    """
    An RSA key is for all RSA algorithms unless one is named.
    """
    private = rsa.generate_private_key(65537, 2048)

    assert Jwk.from_pem(pem(private)).alg is None
    assert len(Jwk.from_pem(pem(private)).algorithms) == 6
    assert Jwk.from_pem(pem(private), "PS512").algorithms == ("PS512",)
    with pytest.raises(InvalidKeyError):
        Jwk.from_pem(pem(private), "ES256")
    with pytest.raises(UnsupportedAlgorithmError):
        Jwk.from_pem(pem(private), "HS256")


@pytest.mark.parametrize(
    ("text", "password"),
    [
        (b"", None),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", None),
        (b"x" * 40_000, None),
        (pem(ec.generate_private_key(ec.SECP256R1())), b"needless"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"word"), b"wrong"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"word"), None),
        (pem(ec.generate_private_key(ec.SECP256K1())), None),
        (pem(ec.generate_private_key(ec.SECP224R1())), None),
        (pem(ed448.Ed448PrivateKey.generate()), None),
        (pem(x25519.X25519PrivateKey.generate()), None),
        (pem(dsa.generate_private_key(1024)), None),
    ],
)
def test_J9_pem_that_is_no_key_of_ours_is_refused(text, password):
    """
    Damaged texts, wrong passwords and other kinds of key give one error that quotes nothing.
    """
    with pytest.raises(InvalidKeyError) as refusal:
        Jwk.from_pem(text, password=password)

    assert refusal.value.__cause__ is None


# --- writing and showing -------------------------------------------------------------------


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_K9_nothing_of_the_private_half_shows(alg, keys):
    """
    Neither the public JWK, nor repr, nor a set, nor an error shows a private member.
    """
    key = keys[alg]
    secrets = {
        value
        for name, value in key.to_dict(private=True).items()
        if name in {"d", "p", "q", "dp", "dq", "qi"}
    }
    shown = [
        json.dumps(key.to_dict()),
        json.dumps(key.public().to_dict()),
        json.dumps(JwkSet.of([key]).to_dict()),
        repr(key),
        str(key),
        repr(JwkSet.of([key])),
        f"{key}",
    ]
    try:
        Jwk.from_dict(key.to_dict(private=True) | {"use": "enc"})
    except InvalidKeyError:
        shown.append(traceback.format_exc())

    assert len(secrets) in (1, 6)
    assert len(shown) == 8
    assert not [text for text in shown for secret in secrets if secret in text]


def test_K9_a_key_cannot_be_pickled_and_a_copy_is_itself(keys):
    """
    Pickling raises; copying an immutable key gives the same object.
    """
    for half in (keys["ES256"], keys["ES256"].public()):
        with pytest.raises(TypeError):
            pickle.dumps(half)
        assert copy.copy(half) is half
        assert copy.deepcopy({"key": half})["key"] is half


def test_public_half_has_no_private_form(keys):
    """
    The public half keeps name and algorithm, cannot sign, and has no private JWK.
    """
    public = keys["ES256"].public()

    assert public.public() is public
    assert (public.kid, public.alg) == ("ES256", "ES256")
    assert public.to_dict() == keys["ES256"].to_dict()
    with pytest.raises(InvalidKeyError):
        public.to_dict(private=True)
    with pytest.raises(InvalidKeyError):
        public.sign(b"message")


def test_keys_are_values(keys):
    """
    Equal members make equal keys; half, name and algorithm count.
    """
    key = keys["ES256"]
    same = Jwk.from_dict(key.to_dict(private=True))

    assert same == key
    assert hash(same) == hash(key)
    assert key.public() != key
    assert Jwk.from_dict(key.to_dict() | {"kid": "other"}) != key.public()
    assert key != "ES256"


# --- signing and verifying -----------------------------------------------------------------


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_J10_any_other_length_or_bit_of_a_signature_is_refused(alg, keys):
    """
    The signature verifies; shorter, longer, empty, padded or with any one bit flipped it fails.
    """
    key = keys[alg].public()
    signature = keys[alg].sign(b"message")
    key.verify(signature, b"message")
    changed = [
        b"",
        signature[:-1],
        signature[1:],
        signature + b"\0",
        b"\0" + signature,
        signature + signature,
        bytes(len(signature)),
        b"\xff" * len(signature),
    ]
    for index in range(0, len(signature), 7):
        flipped = bytearray(signature)
        flipped[index] ^= 1 << (index % 8)
        changed.append(bytes(flipped))
    for wrong in changed:
        with pytest.raises(InvalidJwsError):
            key.verify(wrong, b"message")
    with pytest.raises(InvalidJwsError):
        key.verify(signature, b"messagf")


def test_an_algorithm_that_is_not_the_keys_own_is_refused(keys):
    """
    A key with alg RS256 neither signs nor verifies under PS256.
    """
    key = keys["RS256"]
    key.verify(key.sign(b"message", "RS256"), b"message", "RS256")
    with pytest.raises(UnsupportedAlgorithmError):
        key.sign(b"message", "PS256")
    with pytest.raises(UnsupportedAlgorithmError):
        key.verify(bytes(256), b"message", "RS512")


@given(st.binary(max_size=200), st.sampled_from(["ES256", "ES384", "ES512", "Ed25519"]))
def test_signatures_round_trip(keys, message, alg):
    """
    Whatever is signed verifies; short r and s (one in a hundred) included.
    """
    keys[alg].public().verify(keys[alg].sign(message), message)


def test_J10_short_halves_of_ecdsa_signatures_round_trip(keys):
    """
    Signatures with leading zero octets in r or s are padded when made and read when checked.
    """
    key, public = keys["ES256"], keys["ES256"].public()
    short = 0
    for number in range(20_000):
        message = number.to_bytes(4, "big")
        signature = key.sign(message)
        assert len(signature) == 64
        if not (signature[0] and signature[32]):
            short += 1
            public.verify(signature, message)
        if short == 5:
            break

    assert short == 5


# --- any members -------------------------------------------------------------------------

MEMBERS = st.sampled_from(
    ["kty", "crv", "x", "y", "d", "n", "e", "p", "alg", "use", "key_ops", "kid", "k"]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["EC", "RSA", "OKP", "oct", "P-256", "Ed25519", "sig", "AQAB"])
    | st.lists(st.text(max_size=4), max_size=2)
)


@given(st.dictionaries(MEMBERS, VALUES))
def test_S6_any_members_give_a_key_or_our_error(members):
    """
    No mapping, however odd, raises anything but a KagimoriError.
    """
    try:
        key = Jwk.from_dict(members)
    except KagimoriError:
        return

    assert key.algorithms


@given(st.data())
def test_S6_a_sound_key_with_one_odd_member_gives_a_key_or_our_error(keys, data):
    """
    The same for a key of which one member was replaced.
    """
    alg = data.draw(st.sampled_from(["ES256", "Ed25519", "RS256"]))
    members = keys[alg].to_dict(private=alg != "RS256")
    members[data.draw(MEMBERS)] = data.draw(VALUES)
    try:
        key = Jwk.from_dict(members)
    except KagimoriError:
        return

    assert key.algorithms
