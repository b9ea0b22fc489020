"""
The members of a JWK that hold key material (RFC 7518 section 6, RFC 8037 section 2).

Rules of this module:

1. A member is bounded before it is decoded, and has one accepted spelling: coordinates of
   exact length, integers without leading zeros, canonical base64url. So a key has one
   thumbprint.
2. The public half of a private key is checked against the private one (attack K14): a JWK
   whose halves differ would publish one key and sign with another.
3. No error quotes a member or chains an error that might.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kagimori.crypto.algorithms import CURVES
from kagimori.crypto.digests import b64url_decode, b64url_encode, equal
from kagimori.crypto.key_strength import (
    MAX_RSA_BITS,
    ed25519_weakness,
    rsa_weakness,
)
from kagimori.crypto.signatures import PrivateKey, PublicKey
from kagimori.errors import InvalidKeyError

_EC_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}
_CURVE_NAMES: dict[str, str] = {made().name: name for name, made in _EC_CURVES.items()}
_RSA_CRT = ("p", "q", "dp", "dq", "qi")
_MAX_INTEGER_TEXT = (MAX_RSA_BITS // 8 * 4 + 2) // 3
_ED25519_OCTETS = 32
_REFUSED_BY_LIBRARY = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm)


def decode(
    members: Mapping[str, object], *, validate: bool
) -> tuple[PublicKey, PrivateKey | None]:
    """
    Return the key that these members describe.

    Args:
        members: a JWK.
        validate: whether an RSA private key is proven consistent and its factors prime, which
            takes some 40 ms; without it the members must come from our own authenticated
            store. Everything else is always checked.

    Raises:
        InvalidKeyError: symmetric, unknown, malformed, inconsistent or weak.
    """
    match members.get("kty"):
        case "EC":
            return _decode_ec(members)
        case "RSA":
            return _decode_rsa(members, validate=validate)
        case "OKP":
            return _decode_okp(members)
        case "oct":
            raise InvalidKeyError(
                "Symmetric keys are not accepted.",
                hint="Use an EC, RSA or Ed25519 key.",
            )
        case _:
            raise InvalidKeyError("The type of the key is not supported.")


def public_members(key: PublicKey) -> dict[str, str]:
    """
    Return exactly the members that RFC 7638 takes for a thumbprint.

    Raises:
        InvalidKeyError: the key is on a curve that Kagimori does not offer.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        curve = CURVES[curve_name(key)]
        point = key.public_numbers()
        return {
            "kty": "EC",
            "crv": curve.name,
            "x": _fixed(point.x, curve.size),
            "y": _fixed(point.y, curve.size),
        }
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _minimal(numbers.n), "e": _minimal(numbers.e)}
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": b64url_encode(key.public_bytes_raw()),
    }


def private_members(key: PrivateKey) -> dict[str, str]:
    """
    Return the members that only the private form of a JWK has. Secret.
    """
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = CURVES[curve_name(key.public_key())].size
        return {"d": _fixed(key.private_numbers().private_value, size)}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        return {
            "d": _minimal(numbers.d),
            "p": _minimal(numbers.p),
            "q": _minimal(numbers.q),
            "dp": _minimal(numbers.dmp1),
            "dq": _minimal(numbers.dmq1),
            "qi": _minimal(numbers.iqmp),
        }
    return {"d": b64url_encode(key.private_bytes_raw())}


def curve_name(key: ec.EllipticCurvePublicKey) -> str:
    """
    Return the JOSE name of the key's curve.

    Raises:
        InvalidKeyError: Kagimori does not offer this curve.
    """
    name = _CURVE_NAMES.get(key.curve.name)
    if name is None:
        raise InvalidKeyError("The curve of the key is not supported.")
    return name


def load_pem(
    data: bytes, password: bytes | None
) -> tuple[PublicKey, PrivateKey | None]:
    """
    Return the key in a PEM text: PKCS #8, traditional, or SubjectPublicKeyInfo.

    Raises:
        InvalidKeyError: not such a text, a wrong or missing password, or a key that `decode`
            would refuse.
    """
    try:
        if b"PRIVATE KEY-----" in data:
            private = serialization.load_pem_private_key(data, password)
            public = private.public_key()
        else:
            private = None
            public = serialization.load_pem_public_key(data)
    except _REFUSED_BY_LIBRARY:
        raise InvalidKeyError(
            "The PEM text cannot be read as a key.",
            hint="It must hold one private or public key; check the password.",
        ) from None
    if not isinstance(public, PublicKey) or not isinstance(private, PrivateKey | None):
        raise InvalidKeyError("The type of the key is not supported.")
    # The same checks as for a JWK, by the same code.
    decode(public_members(public), validate=True)
    return public, private


# --- the three types of key ----------------------------------------------------------------


def _decode_ec(members: Mapping[str, object]) -> tuple[PublicKey, PrivateKey | None]:
    name = members.get("crv")
    if not isinstance(name, str) or name not in CURVES:
        raise InvalidKeyError("The curve of the key is not supported.")
    size = CURVES[name].size
    x = int.from_bytes(_octets(members, "x", size), "big")
    y = int.from_bytes(_octets(members, "y", size), "big")
    numbers = ec.EllipticCurvePublicNumbers(x, y, _EC_CURVES[name]())
    try:
        if "d" not in members:
            return numbers.public_key(), None
        secret = int.from_bytes(_octets(members, "d", size), "big")
        private = ec.EllipticCurvePrivateNumbers(secret, numbers).private_key()
    except _REFUSED_BY_LIBRARY:
        raise InvalidKeyError("The EC key is not a point of its curve.") from None
    return private.public_key(), private


def _decode_rsa(
    members: Mapping[str, object], *, validate: bool
) -> tuple[PublicKey, PrivateKey | None]:
    modulus = _integer(members, "n")
    exponent = _integer(members, "e")
    weakness = rsa_weakness(modulus, exponent)
    if weakness is not None:
        raise InvalidKeyError(weakness)
    if "oth" in members:
        raise InvalidKeyError("RSA keys of more than two primes are not accepted.")
    numbers = rsa.RSAPublicNumbers(exponent, modulus)
    try:
        if "d" not in members:
            if any(name in members for name in _RSA_CRT):
                raise InvalidKeyError("The RSA private key is incomplete.")
            return numbers.public_key(), None
        p, q, dp, dq, qi = (_integer(members, name) for name in _RSA_CRT)
        private = rsa.RSAPrivateNumbers(
            p, q, _integer(members, "d"), dp, dq, qi, numbers
        ).private_key(unsafe_skip_rsa_key_validation=not validate)
    except _REFUSED_BY_LIBRARY:
        raise InvalidKeyError("The RSA key is not consistent.") from None
    return private.public_key(), private


def _decode_okp(members: Mapping[str, object]) -> tuple[PublicKey, PrivateKey | None]:
    if members.get("crv") != "Ed25519":
        raise InvalidKeyError("The curve of the key is not supported.")
    encoded = _octets(members, "x", _ED25519_OCTETS)
    weakness = ed25519_weakness(encoded)
    if weakness is not None:
        raise InvalidKeyError(weakness)
    if "d" not in members:
        return ed25519.Ed25519PublicKey.from_public_bytes(encoded), None
    private = ed25519.Ed25519PrivateKey.from_private_bytes(
        _octets(members, "d", _ED25519_OCTETS)
    )
    public = private.public_key()
    if not equal(public.public_bytes_raw(), encoded):
        raise InvalidKeyError("The two halves of the key differ.")
    return public, private


# --- one member ----------------------------------------------------------------------------


def _text(members: Mapping[str, object], name: str, limit: int) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise InvalidKeyError(f"The member {name} of the key is missing.")
    if len(value) > limit:
        raise InvalidKeyError(f"The member {name} of the key is too long.")
    return value


def _decoded(members: Mapping[str, object], name: str, limit: int) -> bytes:
    try:
        return b64url_decode(_text(members, name, limit))
    except ValueError:
        raise InvalidKeyError(
            f"The member {name} of the key is not base64url."
        ) from None


def _octets(members: Mapping[str, object], name: str, size: int) -> bytes:
    value = _decoded(members, name, (size * 4 + 2) // 3)
    if len(value) != size:
        raise InvalidKeyError(f"The member {name} of the key has the wrong length.")
    return value


def _integer(members: Mapping[str, object], name: str) -> int:
    value = _decoded(members, name, _MAX_INTEGER_TEXT)
    # RFC 7518 section 2, Base64urlUInt: the minimum number of octets.
    if not value or value[0] == 0:
        raise InvalidKeyError(f"The member {name} of the key is not a minimal integer.")
    return int.from_bytes(value, "big")


def _fixed(value: int, size: int) -> str:
    return b64url_encode(value.to_bytes(size, "big"))


def _minimal(value: int) -> str:
    return b64url_encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))
