"""
Raw JOSE signatures over `cryptography`: a key and an algorithm become two functions.

Rules of this module:

1. A signature has exactly one length for its key; any other is refused before any
   arithmetic (attacks J10, J14).
2. ECDSA signatures are ``r || s`` with both in 1 … n−1 (RFC 7518 section 3.4); DER exists only
   between here and OpenSSL.
3. What is costly to build is built once per key and algorithm: on the hot path there is only
   the digest and the signature. Digests come from `hashlib`, which is 4 µs faster per
   signature than the same digest inside `cryptography`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from kagimori.crypto.algorithms import CURVES, Algorithm
from kagimori.errors import InvalidJwsError, InvalidKeyError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes], None]

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_DIGESTS = {
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}
_ED25519_SIZE = 64


def signature_size(key: PublicKey, algorithm: Algorithm) -> int:
    """
    Return the exact number of octets of every signature by this key.
    """
    if isinstance(key, rsa.RSAPublicKey):
        return (key.key_size + 7) // 8
    if isinstance(key, ec.EllipticCurvePublicKey) and algorithm.curve is not None:
        return 2 * CURVES[algorithm.curve].size
    return _ED25519_SIZE


def signer(key: PrivateKey, algorithm: Algorithm) -> Sign:
    """
    Return the function that signs a message with this key.
    """
    if isinstance(key, ec.EllipticCurvePrivateKey) and algorithm.scheme == "ecdsa":
        return _ecdsa_signer(key, algorithm)
    if isinstance(key, rsa.RSAPrivateKey) and algorithm.kty == "RSA":
        return _rsa_signer(key, algorithm)
    if isinstance(key, ed25519.Ed25519PrivateKey) and algorithm.scheme == "ed25519":
        return key.sign
    raise InvalidKeyError("The key does not fit the algorithm.")


def verifier(key: PublicKey, algorithm: Algorithm) -> Verify:
    """
    Return the function that checks (signature, message) with this key.

    That function returns nothing, and raises `InvalidJwsError` when the signature is wrong.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and algorithm.scheme == "ecdsa":
        return _ecdsa_verifier(key, algorithm)
    if isinstance(key, rsa.RSAPublicKey) and algorithm.kty == "RSA":
        return _rsa_verifier(key, algorithm)
    if isinstance(key, ed25519.Ed25519PublicKey) and algorithm.scheme == "ed25519":
        return _ed25519_verifier(key)
    raise InvalidKeyError("The key does not fit the algorithm.")


def _wrong() -> InvalidJwsError:
    return InvalidJwsError("The signature does not verify.")


# --- ECDSA ---------------------------------------------------------------------------------


def _ecdsa_signer(key: ec.EllipticCurvePrivateKey, algorithm: Algorithm) -> Sign:
    size = CURVES[algorithm.curve or ""].size
    digest = _DIGESTS[algorithm.hash]
    scheme = ec.ECDSA(Prehashed(_HASHES[algorithm.hash]()))
    sign_digest = key.sign

    def sign(message: bytes) -> bytes:
        return _raw_from_der(sign_digest(digest(message).digest(), scheme), size)

    return sign


def _ecdsa_verifier(key: ec.EllipticCurvePublicKey, algorithm: Algorithm) -> Verify:
    curve = CURVES[algorithm.curve or ""]
    size = curve.size
    zero = bytes(size)
    order = curve.order.to_bytes(size, "big")
    digest = _DIGESTS[algorithm.hash]
    scheme = ec.ECDSA(Prehashed(_HASHES[algorithm.hash]()))
    verify_digest = key.verify
    both = 2 * size
    frames = _der_frames(size)

    def verify(signature: bytes, message: bytes) -> None:
        if len(signature) != both:
            raise _wrong()
        r = signature[:size]
        s = signature[size:]
        # Octet strings of one length compare as the numbers they stand for.
        if not (zero < r < order and zero < s < order):
            raise _wrong()
        if r[0] and s[0]:
            head, middle = frames[r[0] >> 7, s[0] >> 7]
            der = head + r + middle + s
        else:
            der = _der_from_raw(r, s)
        try:
            verify_digest(der, digest(message).digest(), scheme)
        except InvalidSignature:
            raise _wrong() from None

    return verify


def _raw_from_der(der: bytes, size: int) -> bytes:
    """
    Turn OpenSSL's own DER signature into ``r || s``.

    Only ever given what OpenSSL has just made, so it may trust the structure. The library's
    decoder costs four times as much.
    """
    # 30 len 02 lr r 02 ls s; above 127 octets the length takes a second octet (P-521).
    start = 4 if der[1] < 0x80 else 5
    middle = start + der[start - 1]
    r = der[start:middle][-size:]
    s = der[middle + 2 :][-size:]
    return r.rjust(size, b"\0") + s.rjust(size, b"\0")


def _der_frames(size: int) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """
    Return what stands before each half in DER, by the highest bit of both.

    It holds for halves without a leading zero octet, which are 99 of 100: building the
    sequence afresh each time costs 3 % of a whole verification.
    """
    frames = {}
    for r_bit in (0, 1):
        for s_bit in (0, 1):
            r = bytes((0xFF if r_bit else 0x01,)) * size
            s = bytes((0xFF if s_bit else 0x01,)) * size
            der = _der_from_raw(r, s)
            start = der.index(r)
            frames[r_bit, s_bit] = (der[:start], der[start + size : -size])
    return frames


def _der_from_raw(r: bytes, s: bytes) -> bytes:
    """
    Turn both halves of a signature, neither of them zero, into a DER sequence.
    """
    body = _der_integer(r) + _der_integer(s)
    length = len(body)
    if length < 0x80:
        return b"\x30%c%b" % (length, body)
    return b"\x30\x81%c%b" % (length, body)


def _der_integer(octets: bytes) -> bytes:
    first = octets[0]
    if first == 0:
        octets = octets.lstrip(b"\0")
        first = octets[0]
    if first & 0x80:
        return b"\x02%c\0%b" % (len(octets) + 1, octets)
    return b"\x02%c%b" % (len(octets), octets)


# --- RSA -----------------------------------------------------------------------------------


def _rsa_padding(algorithm: Algorithm) -> padding.AsymmetricPadding:
    if algorithm.scheme == "pkcs1v15":
        return padding.PKCS1v15()
    made = _HASHES[algorithm.hash]()
    # RFC 7518 section 3.5: the salt is as long as the digest, and MGF1 uses the same hash.
    return padding.PSS(mgf=padding.MGF1(made), salt_length=made.digest_size)


def _rsa_signer(key: rsa.RSAPrivateKey, algorithm: Algorithm) -> Sign:
    digest = _DIGESTS[algorithm.hash]
    scheme = _rsa_padding(algorithm)
    prehashed = Prehashed(_HASHES[algorithm.hash]())
    sign_digest = key.sign

    def sign(message: bytes) -> bytes:
        return sign_digest(digest(message).digest(), scheme, prehashed)

    return sign


def _rsa_verifier(key: rsa.RSAPublicKey, algorithm: Algorithm) -> Verify:
    size = signature_size(key, algorithm)
    digest = _DIGESTS[algorithm.hash]
    scheme = _rsa_padding(algorithm)
    prehashed = Prehashed(_HASHES[algorithm.hash]())
    verify_digest = key.verify

    def verify(signature: bytes, message: bytes) -> None:
        if len(signature) != size:
            raise _wrong()
        try:
            verify_digest(signature, digest(message).digest(), scheme, prehashed)
        except InvalidSignature:
            raise _wrong() from None

    return verify


# --- Ed25519 -------------------------------------------------------------------------------


def _ed25519_verifier(key: ed25519.Ed25519PublicKey) -> Verify:
    verify_message = key.verify

    def verify(signature: bytes, message: bytes) -> None:
        if len(signature) != _ED25519_SIZE:
            raise _wrong()
        try:
            verify_message(signature, message)
        except InvalidSignature:
            raise _wrong() from None

    return verify
