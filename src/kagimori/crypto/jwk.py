"""
JSON Web Keys for signatures, and sets of them (RFC 7517): `Jwk` and `JwkSet`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kagimori.crypto.jwk_key import Jwk
from kagimori.crypto.jwk_purpose import parsed
from kagimori.errors import InvalidKeyError

__all__ = ["MAX_SET_BYTES", "MAX_SET_KEYS", "Jwk", "JwkSet"]

MAX_SET_BYTES = 1024 * 1024
MAX_SET_KEYS = 512


class JwkSet:
    """
    An immutable set of signature keys, found by kid (RFC 7517 section 5).
    """

    __slots__ = ("_by_kid", "_keys")

    def __init__(self, keys: Iterable[Jwk]) -> None:
        """
        Take keys that are Jwks already; `of` says the same with a name.

        Raises:
            InvalidKeyError: two of them have one kid.
        """
        self._keys = tuple(keys)
        self._by_kid: dict[str, Jwk] = {}
        for key in self._keys:
            if not isinstance(key, Jwk):
                raise InvalidKeyError("A set holds keys only.")
            if key.kid is None:
                continue
            if self._by_kid.setdefault(key.kid, key) is not key:
                raise InvalidKeyError("Two keys of the set have one kid.")

    @classmethod
    def of(cls, keys: Iterable[Jwk]) -> JwkSet:
        """
        Return the set of these keys.

        Raises:
            InvalidKeyError: two of them have one kid.
        """
        return cls(keys)

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> JwkSet:
        """
        Return the set that a JWK Set describes. One bad key refuses the whole set.

        Raises:
            InvalidKeyError: malformed, more than 512 keys, a kid twice, public and private
                keys together, or a key that `Jwk.from_dict` refuses: so no symmetric key,
                least of all beside public ones.
        """
        # What the annotation promises, a caller's parser may not have kept.
        given: object = document
        listed = given.get("keys") if isinstance(given, Mapping) else None
        if not isinstance(listed, list | tuple):
            raise InvalidKeyError("A JWK Set has an array named keys.")
        if len(listed) > MAX_SET_KEYS:
            raise InvalidKeyError(f"A JWK Set has at most {MAX_SET_KEYS} keys.")
        keys = [Jwk.from_dict(members) for members in listed]
        if len({key.is_private for key in keys}) > 1:
            # Public keys are for others to see; a private one among them has leaked.
            raise InvalidKeyError("The set mixes public and private keys.")
        return cls(keys)

    @classmethod
    def from_json(cls, data: bytes | str) -> JwkSet:
        """
        Return the set in a JSON text, in which no member may be named twice.

        Raises:
            InvalidKeyError: as `from_dict`, and when the text is not JSON or over 1 MiB.
        """
        return cls.from_dict(parsed(data, MAX_SET_BYTES, 4 * MAX_SET_KEYS))

    def get(self, kid: str) -> Jwk | None:
        """
        Return the key of this kid, or None.
        """
        return self._by_kid.get(kid)

    def to_dict(self) -> dict[str, list[dict[str, str]]]:
        """
        Return the public halves as a JWK Set.
        """
        return {"keys": [key.to_dict() for key in self._keys]}

    def __iter__(self) -> Iterator[Jwk]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<JwkSet of {len(self._keys)}>"
