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
from typing import Any

import msgspec

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
_TEXT_MEMBERS = ("alg", "kid", "typ", "cty")
_MAX_REMEMBERED = 256
_MAX_REMEMBERED_LENGTH = 512


class VerifiedJws(msgspec.Struct, frozen=True):
    """
    What a JWS says, after its signature has verified.
    """

    header: Mapping[str, object]
    payload: bytes


class _Header(msgspec.Struct, frozen=True):
    members: Mapping[str, Any]
    alg: str
    kid: str | None


# Headers that have verified, by their exact text: a server's tokens share a handful, and
# parsing one strictly costs a tenth of a signature. Only texts that somebody could sign get in,
# and only flat ones, so that nobody can change a shared value.
_remembered: dict[bytes, _Header] = {}

_KEY_TYPES = (Jwk, JwkSet)


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
        self.header = _parse_header(self._prefix[:-1]).members

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
    signer = getattr(key, "memo", None)
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
    allowed = _allowed(algorithms)
    if not isinstance(key, _KEY_TYPES):
        raise InvalidKeyError("A JWS is verified by a Jwk or a JwkSet.")
    text, header_text, payload_text, signature_text = _split(compact, max_length)
    known = _remembered.get(header_text)
    header = _parse_header(header_text) if known is None else known
    alg = header.alg
    if alg not in allowed:
        raise InvalidJwsError("The algorithm of the token is not accepted here.")
    check, size = _choose(key, header.kid, alg).verifier(alg)
    if len(signature_text) != (size * 4 + 2) // 3:
        raise InvalidJwsError("The signature does not verify.")
    try:
        signature = b64url_decode_bytes(signature_text)
        payload = b64url_decode_bytes(payload_text)
    except ValueError:
        raise InvalidJwsError("The token is not canonical base64url.") from None
    check(signature, text[: -len(signature_text) - 1])
    if known is None:
        _remember(header_text, header)
    return VerifiedJws(header.members, payload)


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
    header_text = _split(compact, max_length)[1]
    return (_remembered.get(header_text) or _parse_header(header_text)).members


def _allowed(algorithms: Iterable[str]) -> frozenset[str]:
    try:
        return _checked(algorithms if type(algorithms) is tuple else tuple(algorithms))
    except TypeError:
        raise UnsupportedAlgorithmError("The algorithms are not names.") from None


@lru_cache(maxsize=64)
def _checked(names: tuple[str, ...]) -> frozenset[str]:
    if not names:
        raise UnsupportedAlgorithmError("No algorithm is accepted.")
    return frozenset(algorithm(name).name for name in names)


def _split(compact: object, max_length: int) -> tuple[bytes, bytes, bytes, bytes]:
    """
    Return the whole text and its three parts, as octets.
    """
    if not isinstance(compact, str) or len(compact) > max_length:
        raise InvalidJwsError("The token is not a text of acceptable length.")
    try:
        text = compact.encode("ascii")
    except UnicodeEncodeError:
        # Not chained: the error object holds the token.
        raise InvalidJwsError("The token is not a compact JWS.") from None
    parts = text.split(b".", 3)
    if len(parts) != 3:
        raise InvalidJwsError("The token is not a compact JWS.")
    return text, parts[0], parts[1], parts[2]


def _parse_header(text: bytes) -> _Header:
    if len(text) > MAX_HEADER_LENGTH:
        raise InvalidJwsError("The header of the token is too long.")
    try:
        members = parse_object(b64url_decode_bytes(text))
    except ValueError:
        raise InvalidJwsError("The header of the token is malformed.") from None
    for name in _REFUSED_MEMBERS:
        if name in members:
            raise InvalidJwsError("The header of the token names an extension.")
    if "alg" not in members or not all(
        isinstance(members.get(name, ""), str) for name in _TEXT_MEMBERS
    ):
        raise InvalidJwsError("The header of the token is malformed.")
    return _Header(MappingProxyType(members), members["alg"], members.get("kid"))


def _choose(key: Jwk | JwkSet, kid: str | None, alg: str) -> Jwk:
    if isinstance(key, JwkSet):
        if kid is None:
            fitting = [one for one in key if alg in one.algorithms]
            if len(fitting) != 1:
                raise InvalidJwsError("The token does not say which key signed it.")
            return fitting[0]
        found = key.get(kid)
        if found is None:
            raise InvalidJwsError("The token names a key that is not known here.")
    else:
        found = key
        if kid is not None and key.kid is not None and kid != key.kid:
            raise InvalidJwsError("The token names a key that is not known here.")
    if alg not in found.algorithms:
        raise InvalidJwsError("The algorithm of the token is not the key's own.")
    return found


def _remember(text: bytes, header: _Header) -> None:
    if len(text) > _MAX_REMEMBERED_LENGTH or not all(
        isinstance(value, str) for value in header.members.values()
    ):
        return
    if len(_remembered) >= _MAX_REMEMBERED:
        # Forgetting all needs no lock and no order; the few in use are back at once.
        _remembered.clear()
    _remembered[text] = header
