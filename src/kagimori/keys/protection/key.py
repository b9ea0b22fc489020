"""
A key of a protection ring, and its secret, which is unwrapped when it is first needed.

Rules of this module:

1. A secret never shows in a ``repr`` and is never pickled.
2. A secret is unwrapped once, by one thread, and carried over reloads for as long as the
   element in the store is the same.
3. A permanent failure is remembered, a transient one for some seconds, longer each time and for
   as long as the vault asks, so that neither a flood of payloads becomes a flood of calls to a
   vault, nor an outage outlives itself.
"""

from __future__ import annotations

import threading
import time
from secrets import SystemRandom
from typing import NoReturn

from kagimori.crypto.kdf import CounterKdf
from kagimori.errors import KagimoriError, KeyRingError, KeyWrapError
from kagimori.keys.protection import descriptor
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.derivation import Sealer, sealer
from kagimori.keys.protection.descriptor import Unwrap
from kagimori.keys.protection.elements import StoredKey
from kagimori.keys.protection.frame import id_bytes
from kagimori.keys.timeline import KeyTimeline
from kagimori.keys.wrapping import WrappedSecret

_RETRY_FIRST = 5.0
_RETRY_MOST = 60.0
_RETRY_ASKED_FOR = 300.0
_CHANCE = SystemRandom()

_Opened = tuple[ProtectionAlgorithm, CounterKdf]


class Material:
    """
    The secret of one stored key.

    Args:
        unwrap: opens envelopes.
        recovery: the key's second envelope, for when the first cannot be opened for good.
        earlier: what the same key was before its element was rewritten.
    """

    __slots__ = (
        "_earlier",
        "_error",
        "_failures",
        "_lock",
        "_opened",
        "_retry_at",
        "_unwrap",
        "is_asked_to_wait",
        "recovery",
        "stored",
        "trouble",
    )

    def __init__(
        self,
        stored: StoredKey,
        unwrap: Unwrap,
        recovery: WrappedSecret | None = None,
        earlier: Material | None = None,
    ) -> None:
        self.stored = stored
        self.recovery = recovery
        self.trouble: KagimoriError | None = None
        self.is_asked_to_wait = False
        self._unwrap = unwrap
        # Only what was opened is kept, so that rewriting again and again makes no chain.
        self._earlier = earlier._opened if earlier is not None else None
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._error: KagimoriError | None = None
        self._failures = 0
        self._retry_at = 0.0

    def open(self) -> _Opened:
        """
        Return algorithm and derivation; unwraps when called for the first time.

        A key that opens by its second envelope only, or whose new envelope does not open here
        while the old one had, opens and says so by `trouble`.

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
                self._opened = self._read()
            except KagimoriError as error:
                self._failed(error)
                raise
            self._error = None
            self._failures = 0
            return self._opened

    def _read(self) -> _Opened:
        self.trouble = None
        try:
            return self._read_by(self._unwrap)
        except KeyRingError as error:
            failure = error
        if self._earlier is not None:
            # Whoever wrapped the key anew did so for wrappers that this process lacks, or its
            # vault is down: what it opened before goes on serving.
            self.trouble = failure
            return self._earlier
        recovery = self.recovery
        if recovery is None or getattr(failure, "transient", False):
            raise failure
        try:
            opened = self._read_by(lambda _, key_id: self._unwrap(recovery, key_id))
        except KeyRingError as second:
            # The first envelope is what the ring goes by, unless the second may yet open.
            raise (second if getattr(second, "transient", False) else failure) from None
        self.trouble = failure
        return opened

    def _read_by(self, unwrap: Unwrap) -> _Opened:
        row, master = descriptor.read_secret(self.stored.id, self.stored.text, unwrap)
        return row, CounterKdf(master)

    def _failed(self, error: KagimoriError) -> None:
        self._error = error
        self._failures += 1
        pause = float("inf")
        self.is_asked_to_wait = False
        if isinstance(error, KeyWrapError) and error.transient:
            pause = min(_RETRY_FIRST * 2 ** min(self._failures - 1, 8), _RETRY_MOST)
            asked = getattr(error, "retry_after", None)
            if asked is not None:
                self.is_asked_to_wait = True
                pause = min(max(pause, asked), _RETRY_ASKED_FOR)
            # Many nodes that failed together do not come back together.
            pause *= 1 + 0.2 * _CHANCE.random()
        self._retry_at = time.monotonic() + pause

    @property
    def is_open(self) -> bool:
        """
        Whether the secret has been unwrapped.
        """
        return self._opened is not None

    @property
    def is_inherited(self) -> bool:
        """
        Whether only what was opened before the key was wrapped anew serves.
        """
        return self._opened is not None and self._opened is self._earlier

    def retry(self) -> None:
        """
        Open the new envelope of a key that serves by its old one, if that works by now.
        """
        with self._lock:
            if self.is_inherited:
                try:
                    self._opened = self._read_by(self._unwrap)
                except KagimoriError as error:
                    self.trouble = error
                else:
                    self.trouble = None

    def forget_failure(self) -> None:
        """
        Let the next use try again, unless the vault asked to be left alone for a while.
        """
        if not self.is_asked_to_wait:
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
