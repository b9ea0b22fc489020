"""
A JSON Web Key for signatures (RFC 7517).

Rules of this module:

1. A key fixes its algorithms: its ``alg``, else what its type and curve allow. Nothing that
   arrives later (a header, an argument) can add one.
2. What may not sign or verify is refused twice: when the key is made, and when it is used
   (attack J9).
3. A key is immutable, shows nothing of itself, and cannot be pickled.
4. The private half leaves by `Jwk.to_dict(private=True)` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kagimori.crypto import jwk_members
from kagimori.crypto.algorithms import ALGORITHMS, algorithm, algorithms_for
from kagimori.crypto.digests import b64url_encode, sha256
from kagimori.crypto.jwk_purpose import (
    OPERATIONS,
    SIGN,
    VERIFY,
    alg_of,
    kid_of,
    operations_of,
    parsed,
    use_of,
)
from kagimori.crypto.key_strength import MAX_RSA_BITS, MIN_RSA_BITS
from kagimori.crypto.signatures import (
    PrivateKey,
    PublicKey,
    Sign,
    Verify,
    signature_size,
    signer,
    verifier,
)
from kagimori.errors import InvalidKeyError, UnsupportedAlgorithmError

MAX_KEY_BYTES = 32 * 1024


class Jwk:
    """
    One asymmetric signature key, public or private.

    Made by `from_dict`, `from_json`, `from_pem` or `generate`.
    """

    __slots__ = (
        "__weakref__",
        "_alg",
        "_algorithms",
        "_kid",
        "_members",
        "_operations",
        "_private",
        "_public",
        "_signers",
        "_thumbprint",
        "_use",
        "_verifiers",
        "memo",
    )

    def __init__(
        self,
        public: PublicKey,
        private: PrivateKey | None,
        *,
        kid: str | None,
        alg: str | None,
        use: str | None,
        operations: frozenset[str] = OPERATIONS,
    ) -> None:
        """
        Take what has been checked already. Not for callers: see the class.
        """
        self._members = jwk_members.public_members(public)
        fitting = algorithms_for(self._members["kty"], self._members.get("crv"))
        if alg is not None and alg not in fitting:
            raise InvalidKeyError("The algorithm of the key does not fit the key.")
        self._algorithms = fitting if alg is None else (alg,)
        self._public = public
        self._private = private
        self._kid = kid
        self._alg = alg
        self._use = use
        self._operations = operations
        self._thumbprint: str | None = None
        self._signers: dict[str, Sign] = {}
        self._verifiers: dict[str, tuple[Verify, int]] = {}
        self.memo: object = None
        """
        For the module that signs with this key to keep what it has encoded for it.
        """

    # --- making ----------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, members: Mapping[str, object]) -> Jwk:
        """
        Return the key that a JWK describes, checked in full.

        A private RSA key takes some 40 ms: its primes are proven.

        Raises:
            InvalidKeyError: symmetric, malformed, inconsistent, weak, or for another purpose.
        """
        return cls._from_members(members, validate=True)

    @classmethod
    def from_trusted_dict(cls, members: Mapping[str, object]) -> Jwk:
        """
        Return the key that a JWK from our own authenticated store describes.

        Skips only the proof that a private RSA key is consistent (microseconds instead of
        40 ms); never for a key that somebody else may have written.

        Raises:
            InvalidKeyError: as `from_dict`.
        """
        return cls._from_members(members, validate=False)

    @classmethod
    def from_json(cls, data: bytes | str) -> Jwk:
        """
        Return the key in a JSON text, in which no member may be named twice.

        Raises:
            InvalidKeyError: as `from_dict`, and when the text is not JSON or over 32 KiB.
        """
        return cls.from_dict(parsed(data, MAX_KEY_BYTES, 64))

    @classmethod
    def from_pem(
        cls, data: bytes, alg: str | None = None, password: bytes | None = None
    ) -> Jwk:
        """
        Return the key in a PEM text, with its thumbprint as kid.

        Args:
            data: PKCS #8, a traditional private key, or a SubjectPublicKeyInfo.
            alg: what an RSA key shall be for; left out, all RSA algorithms. An EC key has its
                own.
            password: of an encrypted private key.

        Raises:
            InvalidKeyError: unreadable, weak, or of another type or curve than `alg`.
            UnsupportedAlgorithmError: `alg` is unknown.
        """
        if len(data) > MAX_KEY_BYTES:
            raise InvalidKeyError("The PEM text is too long.")
        if alg is not None:
            algorithm(alg)
        public, private = jwk_members.load_pem(data, password)
        return cls._named(public, private, alg)

    @classmethod
    def generate(cls, alg: str, *, bits: int = 2048) -> Jwk:
        """
        Make a private key, with its thumbprint as kid.

        Args:
            alg: what the key is for.
            bits: the length of an RSA modulus. 2048 bits take some 30 ms, 4096 up to a second.

        Raises:
            UnsupportedAlgorithmError: `alg` is unknown.
            InvalidKeyError: `bits` is too few or too many.
        """
        match algorithm(alg).curve:
            case "P-256":
                return cls._made(ec.generate_private_key(ec.SECP256R1()), alg)
            case "P-384":
                return cls._made(ec.generate_private_key(ec.SECP384R1()), alg)
            case "P-521":
                return cls._made(ec.generate_private_key(ec.SECP521R1()), alg)
            case "Ed25519":
                return cls._made(ed25519.Ed25519PrivateKey.generate(), alg)
        if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS or bits % 8:
            raise InvalidKeyError(
                f"An RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits."
            )
        return cls._made(rsa.generate_private_key(65537, bits), alg)

    @classmethod
    def _made(cls, private: PrivateKey, alg: str) -> Jwk:
        return cls._named(private.public_key(), private, alg)

    @classmethod
    def _named(
        cls, public: PublicKey, private: PrivateKey | None, alg: str | None
    ) -> Jwk:
        key = cls(public, private, kid=None, alg=alg, use="sig")
        key._kid = key.thumbprint()
        if len(key._algorithms) == 1:
            key._alg = key._algorithms[0]
        return key

    @classmethod
    def _from_members(cls, members: Mapping[str, object], *, validate: bool) -> Jwk:
        if not isinstance(members, Mapping):
            raise InvalidKeyError("A JWK is a JSON object.")
        kid = kid_of(members)
        alg = alg_of(members)
        use = use_of(members)
        # The purpose is judged before anything is computed with the material.
        operations = operations_of(members)
        public, private = jwk_members.decode(members, validate=validate)
        return cls(public, private, kid=kid, alg=alg, use=use, operations=operations)

    # --- reading ---------------------------------------------------------------------------

    @property
    def kid(self) -> str | None:
        """
        The key's name, if it has one.
        """
        return self._kid

    @property
    def alg(self) -> str | None:
        """
        The one algorithm that the key names for itself, if it does.
        """
        return self._alg

    @property
    def algorithms(self) -> tuple[str, ...]:
        """
        The names of all algorithms that the key may be used with, the default first.
        """
        return self._algorithms

    @property
    def is_private(self) -> bool:
        """
        Whether the key can sign.
        """
        return self._private is not None

    def thumbprint(self) -> str:
        """
        Return the SHA-256 thumbprint as base64url (RFC 7638).
        """
        if self._thumbprint is None:
            text = json.dumps(self._members, sort_keys=True, separators=(",", ":"))
            self._thumbprint = b64url_encode(sha256(text.encode("ascii")))
        return self._thumbprint

    def public(self) -> Jwk:
        """
        Return the public half, under the same name, for verifying.
        """
        if self._private is None:
            return self
        return Jwk(self._public, None, kid=self._kid, alg=self._alg, use=self._use)

    def to_dict(self, *, private: bool = False) -> dict[str, str]:
        """
        Return the key as a JWK.

        Args:
            private: whether to include the private members. The answer is then a secret.

        Raises:
            InvalidKeyError: `private` was asked of a public key.
        """
        members = dict(self._members)
        if private:
            if self._private is None:
                raise InvalidKeyError("The key has no private half.")
            members |= jwk_members.private_members(self._private)
        named = {"kid": self._kid, "alg": self._alg, "use": self._use}
        return members | {k: v for k, v in named.items() if v is not None}

    # --- using -----------------------------------------------------------------------------

    def sign(self, message: bytes, alg: str | None = None) -> bytes:
        """
        Return the raw JOSE signature of a message.

        Raises:
            InvalidKeyError: the key is public, or its ``key_ops`` do not let it sign.
            UnsupportedAlgorithmError: `alg` is not one of the key's own.
        """
        return self.signer(alg)(message)

    def verify(self, signature: bytes, message: bytes, alg: str | None = None) -> None:
        """
        Return if a raw JOSE signature of a message is right.

        Raises:
            InvalidJwsError: it is not.
            InvalidKeyError: the ``key_ops`` of the key do not let it verify.
            UnsupportedAlgorithmError: `alg` is not one of the key's own.
        """
        self.verifier(alg)[0](signature, message)

    def signer(self, alg: str | None = None) -> Sign:
        """
        Return the function that signs a message, for callers that sign many.

        Raises:
            InvalidKeyError, UnsupportedAlgorithmError: as `sign`.
        """
        name = self._algorithms[0] if alg is None else alg
        made = self._signers.get(name)
        if made is None:
            self._check_own(name)
            if self._private is None or SIGN not in self._operations:
                raise InvalidKeyError("The key cannot sign.")
            made = self._signers[name] = signer(self._private, ALGORITHMS[name])
        return made

    def verifier(self, alg: str | None = None) -> tuple[Verify, int]:
        """
        Return the function that checks (signature, message), and the signature's length.

        Raises:
            InvalidKeyError, UnsupportedAlgorithmError: as `verify`.
        """
        name = self._algorithms[0] if alg is None else alg
        made = self._verifiers.get(name)
        if made is None:
            self._check_own(name)
            if VERIFY not in self._operations:
                raise InvalidKeyError("The key cannot verify.")
            entry = ALGORITHMS[name]
            made = (
                verifier(self._public, entry),
                signature_size(self._public, entry),
            )
            self._verifiers[name] = made
        return made

    def _check_own(self, name: str) -> None:
        if name not in self._algorithms:
            raise UnsupportedAlgorithmError(
                "The algorithm is not one of the key's own.",
                hint=f"The key is for {', '.join(self._algorithms)}.",
            )

    # --- as a value ------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Jwk):
            return NotImplemented
        return (
            self._members == other._members
            and self._kid == other._kid
            and self._algorithms == other._algorithms
            and self.is_private == other.is_private
        )

    def __hash__(self) -> int:
        return hash((self.thumbprint(), self._kid))

    def __repr__(self) -> str:
        half = "private" if self.is_private else "public"
        return f"<Jwk {self._kid!r} {half} {'/'.join(self._algorithms)}>"

    def __copy__(self) -> Jwk:
        return self

    def __deepcopy__(self, memo: object) -> Jwk:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # Key material leaves the process wrapped or not at all.
        raise TypeError("a key cannot be pickled")
