"""
Keys for the tests of JOSE: one private key per algorithm, made once.
"""

from __future__ import annotations

import pytest

from kagimori.crypto.algorithms import ALGORITHMS
from kagimori.crypto.jwk import Jwk


@pytest.fixture(scope="session")
def keys() -> dict[str, Jwk]:
    """
    One private key for each algorithm, named after it. All RSA keys share their material.
    """
    rsa = Jwk.generate("RS256").to_dict(private=True)
    made = {}
    for entry in ALGORITHMS.values():
        if entry.kty == "RSA":
            made[entry.name] = Jwk.from_trusted_dict(
                rsa | {"alg": entry.name, "kid": entry.name}
            )
        else:
            members = Jwk.generate(entry.name).to_dict(private=True)
            made[entry.name] = Jwk.from_dict(members | {"kid": entry.name})
    return made
