"""
The one table of signature algorithms (RFC 7518 section 3.1, RFC 8037, RFC 9864).

An algorithm that is not here does not exist for Kagimori. ``none`` and the HMAC family are
absent on purpose (attacks J1, J2): no list, no metadata and no header can bring them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from kagimori.errors import UnsupportedAlgorithmError

KeyType = Literal["EC", "RSA", "OKP"]
Scheme = Literal["ecdsa", "pkcs1v15", "pss", "ed25519"]


@dataclass(frozen=True, slots=True)
class Curve:
    """
    An elliptic curve.

    Args:
        name: the JWK member ``crv``.
        size: octets of a coordinate, and of each half of an ECDSA signature.
        order: the order of the base point.
    """

    name: str
    size: int
    order: int


@dataclass(frozen=True, slots=True)
class Algorithm:
    """
    A signature algorithm.

    Args:
        name: the value of ``alg``.
        kty: the type of key it takes.
        curve: the curve it is bound to, None for RSA.
        hash: the name that `hashlib` gives the digest; for Ed25519 its inner one.
        scheme: how the digest becomes a signature.
    """

    name: str
    kty: KeyType
    curve: str | None
    hash: Literal["sha256", "sha384", "sha512"]
    scheme: Scheme


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        curve.name: curve
        for curve in (
            Curve(
                "P-256",
                32,
                0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
            ),
            Curve(
                "P-384",
                48,
                0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
            ),
            Curve(
                "P-521",
                66,
                0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
            ),
        )
    }
)
"""
The curves of ECDSA (RFC 7518 section 6.2.1.1; orders from FIPS 186-5).
"""

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Algorithm("ES256", "EC", "P-256", "sha256", "ecdsa"),
            Algorithm("ES384", "EC", "P-384", "sha384", "ecdsa"),
            Algorithm("ES512", "EC", "P-521", "sha512", "ecdsa"),
            Algorithm("RS256", "RSA", None, "sha256", "pkcs1v15"),
            Algorithm("RS384", "RSA", None, "sha384", "pkcs1v15"),
            Algorithm("RS512", "RSA", None, "sha512", "pkcs1v15"),
            Algorithm("PS256", "RSA", None, "sha256", "pss"),
            Algorithm("PS384", "RSA", None, "sha384", "pss"),
            Algorithm("PS512", "RSA", None, "sha512", "pss"),
            # Two names of one algorithm: RFC 8037, and RFC 9864, which replaces it. The
            # older one stands first because it is what a key without `alg` signs with:
            # more verifiers know it.
            Algorithm("EdDSA", "OKP", "Ed25519", "sha512", "ed25519"),
            Algorithm("Ed25519", "OKP", "Ed25519", "sha512", "ed25519"),
        )
    }
)
"""
Every algorithm that Kagimori signs and verifies with, by name, in order of preference within
one type of key.
"""


def algorithm(name: object) -> Algorithm:
    """
    Return the algorithm of this exact name.

    Raises:
        UnsupportedAlgorithmError: no such algorithm is offered.
    """
    found = ALGORITHMS.get(name) if isinstance(name, str) else None
    if found is None:
        raise UnsupportedAlgorithmError(
            "The signature algorithm is not supported.",
            hint=f"Supported are {', '.join(ALGORITHMS)}.",
        )
    return found


def algorithms_for(kty: str, curve: str | None) -> tuple[str, ...]:
    """
    Return the names of all algorithms that a key of this type and curve may be used with.
    """
    return tuple(
        entry.name
        for entry in ALGORITHMS.values()
        if entry.kty == kty and entry.curve == curve
    )
