"""
The wrapper over a key that seals something short elsewhere: a KMS, a transit engine, a token.

Rules of this module:

1. Each secret has a data key of its own, which alone is sent away to be sealed
   (`kagimori.wrappers.envelope`).
2. An envelope's words are a claim. They choose among the keys that were configured, never
   another one, and keys are not tried one after the other.
3. Rights are tried one by one, on data keys of no use, and nothing of that is kept.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Protocol

from kagimori.crypto.digests import equal
from kagimori.errors import KagimoriError, KeyWrapError
from kagimori.keys.findings import Finding
from kagimori.keys.wrapping import WrappedSecret
from kagimori.wrappers.envelope import (
    Envelope,
    EnvelopeFormat,
    named,
    new_data_key,
)

_NONCE = bytes(12)


class UnopenableError(KeyWrapError):
    """
    The key was at hand and allowed, and did not seal this: a wrong key, or altered.
    """


@dataclass(frozen=True, slots=True)
class Sealed:
    """
    A data key, sealed.

    Attributes:
        wrapping_key: the full name of the key that sealed it.
        key_version: its version, where the name does not hold it.
    """

    wrapped_key: bytes = field(repr=False)
    wrapping_key: str
    key_version: str = ""


class Sealer(Protocol):
    """
    Seals and opens data keys by a key that stays where it is.
    """

    @property
    def name(self) -> str:
        """
        Name the key for people.
        """
        ...

    def seal(self, data_key: bytes, context: str) -> Sealed:
        """
        Seal a data key, bound to a context where the service can.

        Raises:
            KeyWrapError: the service refused, or did not answer (then `transient`).
        """
        ...

    def is_named(self, envelope: Envelope) -> bool:
        """
        Whether an envelope says that this key sealed it.
        """
        ...

    def open(self, envelope: Envelope, context: str) -> bytes:
        """
        Return the data key in an envelope.

        Raises:
            UnopenableError: it was sealed by another key, or altered.
            KeyWrapError: the service refused, or did not answer (then `transient`).
        """
        ...

    def dud(self) -> Sealed:
        """
        Return what looks as if it were sealed and opens nowhere.

        Raises:
            KeyWrapError: the service is needed for that and refused, or did not answer.
        """
        ...


class SealingWrapper:
    """
    A `kagimori.keys.wrapping.KeyWrapper` over a `Sealer`.

    Args:
        also: further keys, for reading, so that one key can take over from another.
    """

    def __init__(
        self, sealer: Sealer, envelopes: EnvelopeFormat, *, also: Sequence[Sealer] = ()
    ) -> None:
        self._sealer = sealer
        self._also = tuple(also)
        self._envelopes = envelopes

    @property
    def name(self) -> str:
        """
        Name the wrapping key, without its version.
        """
        return self._sealer.name

    @property
    def is_plaintext(self) -> bool:
        """
        False: secrets are wrapped.
        """
        return False

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        """
        Seal an element for the key id `context`: one call of the service.

        Raises:
            KeyWrapError: the service refused, or did not answer (then `transient`).
        """
        data_key = new_data_key()
        sealed = self._sealer.seal(data_key, context)
        return self._envelopes.seal(
            plaintext,
            context,
            data_key=data_key,
            wrapped_key=sealed.wrapped_key,
            wrapping_key=sealed.wrapping_key,
            key_version=sealed.key_version,
        )

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        """
        Whether the envelope is one of this kind of service.
        """
        return self._envelopes.matches(wrapped)

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        """
        Open the envelope of the key id `context`: one call of the service.

        Raises:
            KeyWrapError: another wrapping key, an altered envelope, a refusal, or no answer
                (then `transient`).
        """
        envelope = self._envelopes.read(wrapped, context)
        known = (self._sealer, *self._also)
        sealer = next((one for one in known if one.is_named(envelope)), self._sealer)
        data_key = sealer.open(envelope, context)
        return self._envelopes.open(envelope, context, data_key)

    def key_of(self, wrapped: WrappedSecret) -> str | None:
        """
        Return which key, in which version, an envelope says it was wrapped by.
        """
        return self._envelopes.key_of(wrapped)

    def newest(self) -> str:
        """
        Return which key, in which version, `wrap` would use; asks the service.

        Raises:
            KeyWrapError: as `wrap`.
        """
        sealed = self._sealer.seal(new_data_key(), _new_context())
        return named(sealed.wrapping_key, sealed.key_version)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try the rights to wrap and to unwrap, each by itself. Leaves nothing behind.
        """
        context = _new_context()
        data_key = new_data_key()
        sealed = None
        try:
            sealed = self._sealer.seal(data_key, context)
            wrap = Finding("wrap", ok=True, text=f"{self.name} wraps.")
        except KagimoriError as error:
            wrap = Finding("wrap", ok=False, text=error.text, remedy=error.hint)
        others = (_try_unwrap(other, None, b"", context) for other in self._also)
        unwrap = _try_unwrap(self._sealer, sealed, data_key, context)
        return wrap, unwrap, *others

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __reduce__(self) -> str:
        raise TypeError("a wrapping key's session is not pickled")


def _try_unwrap(
    sealer: Sealer, sealed: Sealed | None, data_key: bytes, context: str
) -> Finding:
    """
    Try to unwrap; where nothing was sealed, what is said of a dud shows the right to.
    """
    try:
        tried = sealed or sealer.dud()
        envelope = Envelope(
            tried.wrapping_key, tried.key_version, tried.wrapped_key, _NONCE, b""
        )
        opened = sealer.open(envelope, context)
        if not equal(opened, data_key):
            raise KeyWrapError(
                f"What {sealer.name} wrapped is unwrapped to something else.",
                hint="Do not use this key.",
            )
    except KagimoriError as error:
        if sealed is not None or not isinstance(error, UnopenableError):
            return Finding("unwrap", ok=False, text=error.text, remedy=error.hint)
    return Finding("unwrap", ok=True, text=f"{sealer.name} unwraps.")


def _new_context() -> str:
    return str(uuid.UUID(bytes=token_bytes(16), version=4))
