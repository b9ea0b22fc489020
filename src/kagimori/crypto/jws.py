"""
Compact JSON Web Signatures (RFC 7515).

Rules of this module:

1. Bounded before parsed: length, number of parts, size of the header, depth (attack J14).
2. One text for each value: canonical base64url, no member named twice, no JSON serialisation
   (attack J8).
3. The header chooses nothing. The caller says which algorithms, the key says which are its
   own, the header must name one of both; ``jwk``, ``jku``, ``x5u`` and ``x5c`` are carried
   and never looked at (attacks J1, J2, J3). ``kid`` is looked up in the given set and nowhere
   else (attack J4).
4. An extension is refused, understood or not: ``crit`` and ``b64`` always (attack J5).
5. Whatever is wrong with the text, the error is `InvalidJwsError`.
   `UnsupportedAlgorithmError` and `InvalidKeyError` are about the caller's own arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from kagimori.crypto.algorithms import algorithm
from kagimori.crypto.digests import (
    b64url_decode_bytes,
    b64url_encode_bytes,
)
from kagimori.crypto.jwk import Jwk, JwkSet
from kagimori.crypto.strict_json import parse_object
from kagimori.errors import (
    InvalidJwsError,
    InvalidKeyError,
    UnsupportedAlgorithmError,
)

MAX_COMPACT_LENGTH = 64 * 1024
MAX_HEADER_LENGTH = 16 * 1024

_REFUSED_MEMBERS = ("crit", "b64")
_MAX_REMEMBERED = 256
_MAX_REMEMBERED_LENGTH = 512


class VerifiedJws(NamedTuple):
    """
    What a JWS says, after its signature has verified.
    """

    header: Mapping[str, object]
    payload: bytes


# Headers that have verified, by their exact text: a server's tokens share a handful, and
# parsing one strictly costs a tenth of a signature. Only texts that somebody could sign get in,
# and only flat ones, so that nobody can change a shared value.
_remembered: dict[str, Mapping[str, object]] = {}


# --- signing -------------------------------------------------------------------------------


class Signer:
    """
    Signs many payloads under one header, which is encoded once.

    Args:
        key: a private key.
        typ: the header's ``typ``, such as ``at+jwt``.
        extra: further header members; ``alg`` there chooses among the key's own algorithms.

    Raises:
        InvalidKeyError: the key cannot sign, or `extra` names another kid.
        UnsupportedAlgorithmError: `extra` names an algorithm that is not the key's own.
        InvalidJwsError: `extra` has a member that no verifier of ours would accept.
    """

    __slots__ = ("_prefix", "_sign", "header")

    def __init__(
        self,
        key: Jwk,
        *,
        typ: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        if not isinstance(key, Jwk):
            raise InvalidKeyError("A JWS is signed by a Jwk.")
        members = dict(extra or {})
        if typ is not None:
            members["typ"] = typ
        alg = members.pop("alg", key.algorithms[0])
        if not isinstance(alg, str):
            raise UnsupportedAlgorithmError("The algorithm is not a name.")
        if any(name in members for name in _REFUSED_MEMBERS):
            raise InvalidJwsError("The header names an extension.")
        kid = members.pop("kid", key.kid)
        if kid != key.kid and key.kid is not None:
            raise InvalidKeyError("The header names another key.")
        first = {"alg": alg} if kid is None else {"alg": alg, "kid": kid}
        self._sign = key.signer(alg)
        text = _json(first | members)
        self._prefix = b64url_encode_bytes(text) + b"."
        # What we sign we must be able to read.
        self.header = _parse_header(self._prefix[:-1].decode("ascii"))

    def sign(self, payload: bytes) -> str:
        """
        Return the compact JWS of a payload.
        """
        signed = self._prefix + b64url_encode_bytes(payload)
        signature = b64url_encode_bytes(self._sign(signed))
        return (signed + b"." + signature).decode("ascii")


def sign(
    payload: bytes, key: Jwk, *, header: Mapping[str, object] | None = None
) -> str:
    """
    Return the compact JWS of a payload.

    ``alg`` and ``kid`` come from the key. For many payloads under one special header use
    `Signer`; without `header` this is as fast.

    Raises:
        InvalidKeyError, UnsupportedAlgorithmError, InvalidJwsError: as `Signer`.
    """
    if header is not None:
        return Signer(key, extra=header).sign(payload)
    signer = key.memo if isinstance(key, Jwk) else None
    if not isinstance(signer, Signer):
        signer = Signer(key)
        key.memo = signer
    return signer.sign(payload)


def _json(members: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(
            members, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise InvalidJwsError("The header is not JSON.") from None


# --- verifying -----------------------------------------------------------------------------


def verify(
    compact: str,
    key: Jwk | JwkSet,
    *,
    algorithms: Iterable[str],
    max_length: int = MAX_COMPACT_LENGTH,
) -> VerifiedJws:
    """
    Return what a compact JWS says, if one of our keys has signed it.

    Args:
        compact: the token's text.
        key: the one key, or a set, of which the header's kid chooses exactly one; without a
            kid exactly one key must fit.
        algorithms: the names that are acceptable here; the key's own narrow them further.
        max_length: in characters, 64 KiB by default.

    Raises:
        InvalidJwsError: malformed, signed by another key, or under another algorithm.
        UnsupportedAlgorithmError: `algorithms` is empty or names one that is not offered.
        InvalidKeyError: `key` is no key, or one that may not verify.
    """
    allowed = _allowed(algorithms if type(algorithms) is tuple else _names(algorithms))
    if not isinstance(key, Jwk | JwkSet):
        raise InvalidKeyError("A JWS is verified by a Jwk or a JwkSet.")
    header_text, payload_text, signature_text = _split(compact, max_length)
    header = _remembered.get(header_text) or _parse_header(header_text)
    alg = header["alg"]
    if alg not in allowed:
        raise InvalidJwsError("The algorithm of the token is not accepted here.")
    chosen = _choose(key, header.get("kid"), str(alg))
    check, size = chosen.verifier(str(alg))
    if len(signature_text) != (size * 4 + 2) // 3:
        raise InvalidJwsError("The signature does not verify.")
    signed = compact[: -len(signature_text) - 1].encode("ascii")
    try:
        signature = b64url_decode_bytes(signature_text.encode("ascii"))
        payload = b64url_decode_bytes(payload_text.encode("ascii"))
    except ValueError:
        raise InvalidJwsError("The token is not canonical base64url.") from None
    check(signature, signed)
    if header_text not in _remembered:
        _remember(header_text, header)
    return VerifiedJws(header, payload)


def peek_header(
    compact: str, *, max_length: int = MAX_COMPACT_LENGTH
) -> Mapping[str, object]:
    """
    Return the header of a compact JWS that nobody has verified.

    Only for choosing which keys to load. ``alg`` is a text; ``kid`` and ``typ``, where they
    are, are too.

    Raises:
        InvalidJwsError: the text is not a compact JWS.
    """
    header_text, _, _ = _split(compact, max_length)
    return _remembered.get(header_text) or _parse_header(header_text)


def _names(algorithms: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(algorithms)
    except TypeError:
        raise UnsupportedAlgorithmError("The algorithms are not names.") from None


def _allowed(names: tuple[str, ...]) -> frozenset[str]:
    try:
        return _checked(names)
    except TypeError:
        raise UnsupportedAlgorithmError("The algorithms are not names.") from None


@lru_cache(maxsize=64)
def _checked(names: tuple[str, ...]) -> frozenset[str]:
    if not names:
        raise UnsupportedAlgorithmError("No algorithm is accepted.")
    return frozenset(algorithm(name).name for name in names)


def _split(compact: object, max_length: int) -> tuple[str, str, str]:
    if not isinstance(compact, str) or len(compact) > max_length:
        raise InvalidJwsError("The token is not a text of acceptable length.")
    if compact.count(".") != 2 or not compact.isascii():
        raise InvalidJwsError("The token is not a compact JWS.")
    header, payload, signature = compact.split(".")
    if not signature or not 0 < len(header) <= MAX_HEADER_LENGTH:
        raise InvalidJwsError("The token is not a compact JWS.")
    return header, payload, signature


def _parse_header(text: str) -> Mapping[str, object]:
    try:
        members = parse_object(b64url_decode_bytes(text.encode("ascii")))
    except ValueError:
        raise InvalidJwsError("The header of the token is malformed.") from None
    for name in _REFUSED_MEMBERS:
        if name in members:
            raise InvalidJwsError("The header of the token names an extension.")
    for name in ("alg", "kid", "typ", "cty"):
        value = members.get(name, "" if name != "alg" else None)
        if not isinstance(value, str):
            raise InvalidJwsError("The header of the token is malformed.")
    return MappingProxyType(members)


def _choose(key: Jwk | JwkSet, kid: object, alg: str) -> Jwk:
    if isinstance(key, JwkSet):
        if kid is None:
            fitting = [one for one in key if alg in one.algorithms]
            if len(fitting) != 1:
                raise InvalidJwsError("The token does not say which key signed it.")
            return fitting[0]
        found = key.get(kid) if isinstance(kid, str) else None
        if found is None:
            raise InvalidJwsError("The token names a key that is not known here.")
    else:
        found = key
        if kid is not None and key.kid is not None and kid != key.kid:
            raise InvalidJwsError("The token names a key that is not known here.")
    if alg not in found.algorithms:
        raise InvalidJwsError("The algorithm of the token is not the key's own.")
    return found


def _remember(text: str, header: Mapping[str, object]) -> None:
    if len(text) > _MAX_REMEMBERED_LENGTH or not all(
        isinstance(value, str) for value in header.values()
    ):
        return
    if len(_remembered) >= _MAX_REMEMBERED:
        # Forgetting all needs no lock and no order; the few in use are back at once.
        _remembered.clear()
    _remembered[text] = header
