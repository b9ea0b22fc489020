"""
What makes a public key too weak to trust (attack J9).

Everything here is decided from the public numbers alone, so that it holds for keys that
others made. It is cheap: a few microseconds for RSA, a tenth of a millisecond for Ed25519.
"""

from __future__ import annotations

import math

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""
Above this a single verification costs more than an attacker should be able to ask for.
"""

# OpenSSL's own limit for large moduli.
_MAX_EXPONENT_BITS = 64

_SMALL_PRIMES = tuple(
    candidate
    for candidate in range(3, 1000, 2)
    if all(candidate % factor for factor in range(3, math.isqrt(candidate) + 1, 2))
)
_SMALL_PRODUCT = math.prod(_SMALL_PRIMES)


def _powers_of_65537(prime: int) -> frozenset[int]:
    powers = set()
    power = 1
    while power not in powers:
        powers.add(power)
        power = power * 65537 % prime
    return frozenset(powers)


# CVE-2017-15361 (ROCA): the primes made by a family of smart-card chips are powers of 65537
# modulo the product of the first primes, and so is the modulus. A sound modulus passes for one
# of them with a probability of 2 to the power of −30.
_ROCA_RESIDUES = tuple(
    (prime, _powers_of_65537(prime)) for prime in _SMALL_PRIMES if prime <= 167
)

_P25519 = 2**255 - 19
_D25519 = -121665 * pow(121666, -1, _P25519) % _P25519


def rsa_weakness(modulus: int, exponent: int) -> str | None:
    """
    Return why this RSA public key must not be trusted, or None.
    """
    if modulus.bit_length() < MIN_RSA_BITS:
        return f"The RSA key is shorter than {MIN_RSA_BITS} bits."
    if modulus.bit_length() > MAX_RSA_BITS:
        return f"The RSA key is longer than {MAX_RSA_BITS} bits."
    if exponent < 3 or exponent % 2 == 0:
        return "The RSA public exponent is weak."
    if exponent.bit_length() > _MAX_EXPONENT_BITS:
        return "The RSA public exponent is too large."
    if modulus % 2 == 0 or math.gcd(modulus, _SMALL_PRODUCT) != 1:
        return "The RSA modulus has a small factor."
    if all(modulus % prime in residues for prime, residues in _ROCA_RESIDUES):
        return "The RSA modulus was made by a generator known to be broken (ROCA)."
    return None


def ed25519_weakness(encoded: bytes) -> str | None:
    """
    Return why these 32 octets must not be trusted as an Ed25519 public key, or None.

    OpenSSL decodes the point only when it verifies, and accepts points of small order.
    """
    number = int.from_bytes(encoded, "little")
    y = number & (2**255 - 1)
    if y >= _P25519:
        return "The Ed25519 public key is not canonical."
    squared = y * y % _P25519
    # With a point of order 1 or 2 (y² = 1), 4 (y = 0) or 8 (its double has y = 0, which is
    # d y⁴ + 2 y² − 1 = 0) as public key, one signature verifies many messages.
    if squared in (0, 1) or (_D25519 * squared + 2) * squared % _P25519 == 1:
        return "The Ed25519 public key has a small order."
    # RFC 8032 section 5.1.3: x² = (y² − 1) / (d y² + 1) must be a square.
    square = (squared - 1) * pow(_D25519 * squared + 1, -1, _P25519) % _P25519
    if pow(square, (_P25519 - 1) // 2, _P25519) != 1:
        return "The Ed25519 public key is not a point of the curve."
    return None
