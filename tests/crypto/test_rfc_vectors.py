"""
The examples of RFC 7515, RFC 7517, RFC 7638 and RFC 8037.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kagimori.crypto import jws
from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.errors import (
    InvalidJwsError,
    InvalidKeyError,
    UnsupportedAlgorithmError,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "jose" / "rfc.json").read_text()
)
OURS = [name for name, case in VECTORS["jws"].items() if case["alg"] in ALGORITHMS]
DETERMINISTIC = ["RFC 7515 A.2", "RFC 8037 A.4"]


def test_the_examples_are_those_of_our_algorithms():
    """
    The file holds the four examples that we verify and the two that we refuse.
    """
    assert OURS == ["RFC 7515 A.2", "RFC 7515 A.3", "RFC 7515 A.4", "RFC 8037 A.4"]
    assert len(VECTORS["jws"]) == 6


@pytest.mark.parametrize("name", OURS)
def test_example_signature_verifies(name):
    """
    The printed signature verifies under the printed key, and under no other algorithm.
    """
    case = VECTORS["jws"][name]
    key = Jwk.from_dict(case["key"])
    verified = jws.verify(case["jws"], key.public(), algorithms=[case["alg"]])

    assert {"alg": case["alg"]} == dict(verified.header)
    assert verified.payload.startswith(
        (b'{"iss":"joe",\r\n', b"Payload", b"Example of")
    )
    others = [other for other in ALGORITHMS if other != case["alg"]]
    with pytest.raises(InvalidJwsError):
        jws.verify(case["jws"], key, algorithms=others)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_example_signature_is_made_again(name):
    """
    Signing the same payload gives the printed text, where the algorithm draws no randomness.
    """
    case = VECTORS["jws"][name]
    key = Jwk.from_dict(case["key"])
    payload = jws.verify(case["jws"], key, algorithms=[case["alg"]]).payload

    assert case["jws"] == jws.sign(payload, key, header={"alg": case["alg"]})


def test_J2_the_hmac_and_none_examples_are_refused(keys):
    """
    RFC 7515 A.1 (HS256) and A.5 (none) have no key, no name and no verification here.
    """
    mac = VECTORS["jws"]["RFC 7515 A.1"]
    none = VECTORS["jws"]["RFC 7515 A.5"]

    with pytest.raises(InvalidKeyError):
        Jwk.from_dict(mac["key"])
    for case in (mac, none):
        with pytest.raises(UnsupportedAlgorithmError):
            jws.verify(case["jws"], keys["ES256"], algorithms=[case["alg"]])
        with pytest.raises(InvalidJwsError):
            jws.verify(case["jws"], keys["ES256"], algorithms=["ES256"])


@pytest.mark.parametrize("name", list(VECTORS["thumbprints"]))
def test_example_thumbprint(name):
    """
    The thumbprint is the printed one, from the members of the public half alone.
    """
    case = VECTORS["thumbprints"][name]
    key = Jwk.from_dict(case["key"])

    assert case["thumbprint"] == key.thumbprint()
    assert case["key"] == key.to_dict()


def test_rfc_7517_set_is_refused_for_its_encryption_key_only():
    """
    The set of RFC 7517 A.1 holds an encryption key: refused; without that key it is accepted.
    """
    document = VECTORS["sets"]["RFC 7517 A.1"]
    with pytest.raises(InvalidKeyError):
        JwkSet.from_dict(document)
    kept = JwkSet.from_dict(
        {"keys": [key for key in document["keys"] if key.get("use") != "enc"]}
    )

    assert ["2011-04-29"] == [key.kid for key in kept]
