"""
Wrapping by a passphrase: Argon2id makes a key-encryption key, AES-256-GCM seals.

The envelope (`docs/ring-passphrase.md`), in the namespace ``urn:kagimori:ring:1``::

    <passphraseKey version="1">
      <derivation algorithm="argon2id" version="19" memoryKiB="…" iterations="…" lanes="…"
                  salt="base64, 16 bytes" />
      <value nonce="base64, 12 bytes">base64 of AES-256-GCM(KEK, nonce, element) || tag</value>
    </passphraseKey>

    KEK = Argon2id 1.3(passphrase, salt, memory, iterations, lanes, 32 bytes)      (RFC 9106)
    AAD = UTF-8 of the six lines: "kagimori-passphrase-1", memory, iterations, lanes,
          salt in base64, key id

Rules of this module:

1. The key's id and all parameters are authenticated: an envelope moved to another key, or with
   a parameter changed, does not open.
2. Parameters are bounded before anything is derived: a hostile ring costs no gigabytes.
3. Envelopes of one ring share their salt, so that opening a ring costs one derivation.
4. ASP.NET Core cannot read these rings: share a ring with it by a certificate.
"""

from __future__ import annotations

import binascii
import re
import threading
from base64 import b64encode
from dataclasses import dataclass
from secrets import token_bytes

from kagimori.addresses import Address, absolute_path
from kagimori.crypto.aead import NONCE_BYTES, gcm_open, gcm_seal
from kagimori.crypto.passwords import MAX_SECRET_BYTES, derive_key
from kagimori.errors import (
    ConfigError,
    InvalidKeyError,
    KeyWrapError,
    ProtectionError,
    RingMalformedError,
)
from kagimori.events import EventSink
from kagimori.keys.protection import descriptor, xml
from kagimori.keys.protection.forking import tell_of_forks
from kagimori.keys.wrapping import WrappedSecret
from kagimori.secret_sources import from_environment, from_file, warn_of_mode

DECRYPTOR = "Kagimori.DataProtection.PassphraseXmlDecryptor, Kagimori"

_CLASS = descriptor.class_name(DECRYPTOR)
_ROOT = f"{{{xml.KAGIMORI}}}passphraseKey"
_DERIVATION = f"{{{xml.KAGIMORI}}}derivation"
_VALUE = f"{{{xml.KAGIMORI}}}value"
_SALT_BYTES = 16
_KEK_BYTES = 32
_MOST_KEPT = 32


@dataclass(frozen=True, slots=True)
class Derivation:
    """
    Parameters of Argon2id. The defaults are RFC 9106's second recommendation.

    Attributes:
        memory_kib: memory in KiB, 8 MiB to 1 GiB.
        iterations: passes over it, 1 to 16.
        lanes: 1 to 16.
    """

    salt: bytes
    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4

    def check(self) -> None:
        """
        Refuse parameters out of bounds, before memory is taken.

        Raises:
            KeyWrapError: one of them is.
        """
        if not (
            8 * 1024 <= self.memory_kib <= 1024 * 1024
            and 1 <= self.iterations <= 16
            and 1 <= self.lanes <= 16
            and self.memory_kib * self.iterations <= 4 * 1024 * 1024
            and len(self.salt) == _SALT_BYTES
        ):
            raise KeyWrapError(
                "The ring asks for a key derivation whose cost is out of bounds.",
                hint="Whoever wrote that is not Kagimori: restore the ring from a backup.",
            )


class PassphraseWrapper:
    """
    Wraps by a passphrase. Thread-safe; keeps derived keys in memory, never the element.

    Args:
        passphrase: 1 to 1024 bytes.
        source: where it came from, for people, such as ``env:NAME``.

    Raises:
        ConfigError: the passphrase is empty or too long.
    """

    def __init__(self, passphrase: bytes, *, source: str = "given") -> None:
        if not 0 < len(passphrase) <= MAX_SECRET_BYTES:
            raise ConfigError(
                f"The passphrase of {source} is empty or longer than {MAX_SECRET_BYTES} bytes.",
                hint="Put the passphrase there that the ring was made with.",
            )
        self._passphrase = passphrase
        self._source = source
        self._lock = threading.Lock()
        self._keks: dict[Derivation, bytes] = {}
        self._latest: Derivation | None = None
        tell_of_forks(self)

    def after_fork(self) -> None:
        """
        Renew the lock that a thread of the parent process may have held while it derived.
        """
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """
        Where the passphrase comes from.
        """
        return f"passphrase ({self._source})"

    @property
    def is_plaintext(self) -> bool:
        """
        False: secrets are wrapped.
        """
        return False

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        """
        Seal an element for the key id `context`.

        Raises:
            KeyWrapError: the derivation failed.
        """
        derivation = self._latest or Derivation(token_bytes(_SALT_BYTES))
        nonce = token_bytes(NONCE_BYTES)
        sealed = gcm_seal(
            self._kek(derivation), nonce, plaintext.encode(), _aad(derivation, context)
        )
        root = xml.element(_ROOT, {"version": "1"})
        attributes = {
            "algorithm": "argon2id",
            "version": "19",
            "memoryKiB": str(derivation.memory_kib),
            "iterations": str(derivation.iterations),
            "lanes": str(derivation.lanes),
            "salt": _b64(derivation.salt),
        }
        xml.child(root, _DERIVATION, attributes)
        xml.child(root, _VALUE, {"nonce": _b64(nonce)}, _b64(sealed))
        return WrappedSecret(DECRYPTOR, xml.write(root))

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        """
        Whether the envelope is one of a passphrase.
        """
        return descriptor.class_name(wrapped.decryptor_type) == _CLASS

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        """
        Open the envelope of the key id `context`.

        Raises:
            KeyWrapError: another passphrase, an altered envelope, or one of another key.
        """
        derivation, nonce, sealed = _parts(wrapped, context)
        derivation.check()
        try:
            kek = self._kek(derivation)
            plaintext = gcm_open(kek, nonce, sealed, _aad(derivation, context))
        except ProtectionError:
            raise KeyWrapError(
                f"The passphrase of {self._source} does not open the key {context}.",
                hint="Use the passphrase that the ring was made with. If it is that one, the "
                "ring was altered: restore it from a backup.",
            ) from None
        return plaintext.decode()

    def _kek(self, derivation: Derivation) -> bytes:
        # Under the lock, so that many threads at a cold start derive once.
        with self._lock:
            kek = self._keks.get(derivation)
            if kek is None:
                try:
                    kek = derive_key(
                        self._passphrase,
                        derivation.salt,
                        memory_kib=derivation.memory_kib,
                        iterations=derivation.iterations,
                        lanes=derivation.lanes,
                        length=_KEK_BYTES,
                    )
                except (InvalidKeyError, MemoryError) as error:
                    raise KeyWrapError(
                        "The key derivation of the passphrase failed.",
                        detail=type(error).__name__,
                        transient=isinstance(error, MemoryError),
                    ) from None
                if len(self._keks) >= _MOST_KEPT:
                    self._keks.clear()
                self._keks[derivation] = kek
            # New envelopes share the salt of old ones, unless those were cheaper to attack.
            if _is_strong(derivation):
                self._latest = derivation
            return kek

    def __repr__(self) -> str:
        return f"<PassphraseWrapper {self._source}>"

    def __reduce__(self) -> str:
        raise TypeError("a passphrase is not pickled")


def _is_strong(derivation: Derivation) -> bool:
    default = Derivation(derivation.salt)
    return (
        derivation.memory_kib >= default.memory_kib
        and derivation.iterations >= default.iterations
    )


def _aad(derivation: Derivation, context: str) -> bytes:
    lines = (
        "kagimori-passphrase-1",
        str(derivation.memory_kib),
        str(derivation.iterations),
        str(derivation.lanes),
        _b64(derivation.salt),
        context,
    )
    return "\n".join(lines).encode()


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _parts(wrapped: WrappedSecret, context: str) -> tuple[Derivation, bytes, bytes]:
    try:
        root = xml.parse(wrapped.child, what="A passphrase envelope")
        parts = _read(root)
    except (ValueError, RingMalformedError):
        parts = None
    if parts is None:
        raise KeyWrapError(
            f"The envelope of the key {context} is malformed, or of a newer version.",
            hint="Restore the ring from a backup, or upgrade Kagimori.",
        )
    return parts


def _read(root: xml.Element) -> tuple[Derivation, bytes, bytes] | None:
    """
    Return what an envelope holds, ``None`` if it is none; bad base64 is a ValueError.
    """
    derivation, value = root.find(_DERIVATION), root.find(_VALUE)
    if root.tag != _ROOT or derivation is None or value is None:
        return None
    named = root.get("version"), derivation.get("algorithm"), derivation.get("version")
    texts = [derivation.get(name, "") for name in ("memoryKiB", "iterations", "lanes")]
    nonce = _raw(value.get("nonce", ""))
    if (
        named != ("1", "argon2id", "19")
        or not all(re.fullmatch("[1-9][0-9]{0,8}", text) for text in texts)
        or len(nonce) != NONCE_BYTES
    ):
        return None
    salt = _raw(derivation.get("salt", ""))
    numbers = [int(text) for text in texts]
    return Derivation(salt, *numbers), nonce, _raw(xml.text_of(value))


def _raw(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


def open_wrapper(address: Address, events: EventSink) -> PassphraseWrapper:
    """
    Return the wrapper of ``passphrase:env:NAME`` or ``passphrase:file:/path``.

    Raises:
        ConfigError: the address is malformed, or the passphrase is not there.
    """
    address.allow()
    kind, _, named = address.path.partition(":")
    if kind == "env" and named:
        return PassphraseWrapper(from_environment(named), source=address.rest)
    if kind == "file" and named:
        path = absolute_path(named, "A passphrase's file")
        secret = from_file(path)
        warn_of_mode(path, events)
        return PassphraseWrapper(secret, source=address.rest)
    raise ConfigError(
        "A passphrase is named by passphrase:env:NAME or passphrase:file:/path."
    )
