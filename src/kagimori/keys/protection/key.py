"""
A key of a protection ring, and its secret, which is unwrapped when it is first needed.

Rules of this module:

1. A secret never shows in a ``repr`` and is never pickled.
2. A secret is unwrapped once, by one thread, and carried over reloads for as long as the
   element in the store is the same.
3. A permanent failure is remembered, a transient one for a few seconds only, so that neither
   a flood of payloads becomes a flood of calls to a vault, nor an outage outlives itself.
"""

from __future__ import annotations

import threading
import time
from typing import NoReturn

from kagimori.crypto.kdf import CounterKdf
from kagimori.errors import KagimoriError, KeyWrapError
from kagimori.keys.protection import descriptor
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.derivation import Sealer, sealer
from kagimori.keys.protection.descriptor import Unwrap
from kagimori.keys.protection.elements import StoredKey
from kagimori.keys.protection.frame import id_bytes
from kagimori.keys.timeline import KeyTimeline

_RETRY_AFTER = 5.0


class Material:
    """
    The secret of one stored key.
    """

    __slots__ = ("_error", "_lock", "_opened", "_retry_at", "_unwrap", "stored")

    def __init__(self, stored: StoredKey, unwrap: Unwrap) -> None:
        self.stored = stored
        self._unwrap = unwrap
        self._lock = threading.Lock()
        self._opened: tuple[ProtectionAlgorithm, CounterKdf] | None = None
        self._error: KagimoriError | None = None
        self._retry_at = 0.0

    def open(self) -> tuple[ProtectionAlgorithm, CounterKdf]:
        """
        Return algorithm and derivation; unwraps when called for the first time.

        Raises:
            KeyRingError: the key cannot be read.
        """
        opened = self._opened
        if opened is not None:
            return opened
        with self._lock:
            if self._opened is not None:
                return self._opened
            if self._error is not None and time.monotonic() < self._retry_at:
                raise self._error.with_traceback(None)
            try:
                row, master = descriptor.read_secret(
                    self.stored.id, self.stored.text, self._unwrap
                )
            except KagimoriError as error:
                transient = isinstance(error, KeyWrapError) and error.transient
                pause = _RETRY_AFTER if transient else float("inf")
                self._error, self._retry_at = error, time.monotonic() + pause
                raise
            self._opened = row, CounterKdf(master)
            self._error = None
            return self._opened

    @property
    def is_open(self) -> bool:
        """
        Whether the secret has been unwrapped.
        """
        return self._opened is not None

    def forget_failure(self) -> None:
        """
        Let the next use try again, whatever went wrong before.
        """
        self._retry_at = 0.0

    def renew_lock(self) -> None:
        """
        Replace a lock that a thread of the parent process may have held at a fork.
        """
        self._lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("key material is not pickled")


class ProtectionKey:
    """
    A key of a protection ring at the times of one load.

    Attributes:
        id: the GUID, lower case with hyphens.
        raw_id: the id as it lies in a frame.
        timeline: the key's times; `due` is .NET's expirationDate.
        material: the key's secret, not yet unwrapped perhaps.
        is_revoked: whether by id or by date; such a key neither protects nor unprotects.
    """

    __slots__ = ("id", "is_revoked", "material", "raw_id", "timeline")

    def __init__(
        self, material: Material, timeline: KeyTimeline, *, is_revoked: bool
    ) -> None:
        self.id = material.stored.id
        self.raw_id = id_bytes(self.id)
        self.timeline = timeline
        self.is_revoked = is_revoked
        self.material = material

    @property
    def stored(self) -> StoredKey:
        """
        The key's element.
        """
        return self.material.stored

    @property
    def algorithm(self) -> str:
        """
        The name of the key's algorithm; ``unknown`` where it is not known here.
        """
        row = self.stored.algorithm
        return row.name if row else "unknown"

    def with_timeline(self, timeline: KeyTimeline) -> ProtectionKey:
        """
        Return the same key with other times.
        """
        return ProtectionKey(self.material, timeline, is_revoked=self.is_revoked)

    def sealer(self, aad: bytes) -> Sealer:
        """
        Return what seals and opens payloads for the purposes in an AAD.

        Raises:
            KeyRingError: the key cannot be read.
        """
        row, kdf = self.material.open()
        return sealer(kdf, row, self.raw_id, aad)

    def __repr__(self) -> str:
        return f"<ProtectionKey {self.id} {self.algorithm}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("key material is not pickled")
