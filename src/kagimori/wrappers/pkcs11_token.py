"""
One token of a PKCS#11 module: its session, and the keys found in it.

Rules of this module:

1. A module is used by one thread at a time: python-pkcs11 initialises it without locking.
2. A forked process initialises the module anew and uses nothing that its parent opened.
3. A PIN that was refused is not presented again: tokens lock after a few times.
4. Whatever fails may be a lost session, and is tried once more with a new one. A token that is
   not there is looked for once more in a module that is initialised anew, unless that would cost
   other tokens their sessions.
5. Sessions of a process share their login, and closing one that logged in ends it for all: a
   process has one session of a token, whoever uses it.
6. Whoever calls waits `timeout` seconds at most, whatever the module does meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kagimori.errors import ConfigError, KeyWrapError

if TYPE_CHECKING:
    import pkcs11
    from pkcs11._pkcs11 import lib as Library  # noqa: N812 - it is a class

    from kagimori.wrappers.pkcs11_sealing import AesKey

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KeyName:
    """
    Which key of a token is meant.

    Attributes:
        label: its CKA_LABEL; empty where only the id counts.
        id: its CKA_ID; empty where only the label counts.
    """

    label: str
    id: bytes = b""

    def __str__(self) -> str:
        return f"{self.label};id={self.id.hex()}" if self.id else self.label


@dataclass(slots=True)
class Opened:
    """
    An open session and the keys found in it.
    """

    session: pkcs11.Session
    slot: pkcs11.Slot
    keys: dict[KeyName, AesKey] = field(default_factory=dict)


@dataclass(slots=True)
class _Module:
    """
    A module as this process has initialised it.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    library: Library | None = None
    opened: dict[tuple[str | None, int | None], Opened] = field(default_factory=dict)


_MODULES: dict[tuple[int, Path], _Module] = {}


class Token:
    """
    A token, found by its label, or in a slot.

    Args:
        module: the path of the module's library.
        label: of the token; left out where the slot is named.
        slot: the slot's number.
        pin: returns the user's PIN, ``None`` for a token without login.
        timeout: seconds that a call may take.
    """

    def __init__(
        self,
        module: Path,
        *,
        label: str | None,
        slot: int | None,
        pin: Callable[[], str | None],
        timeout: float,
    ) -> None:
        self._path = module
        self._place = label, slot
        self._label = label
        self._slot = slot
        self._pin = pin
        self._timeout = timeout
        self._was_there = False
        self._refused: tuple[str | None, KeyWrapError] | None = None

    @property
    def name(self) -> str:
        """
        Name the token for people.
        """
        return f"token {self._label}" if self._label else f"slot {self._slot}"

    def run(self, work: Callable[[Opened], _T]) -> _T:
        """
        Do some work in a session, again in a new one if it fails.

        Raises:
            KeyWrapError: the token, or what `work` asks for, cannot be had.
            pkcs11.PKCS11Error: the work failed twice.
        """
        module = _MODULES.setdefault((os.getpid(), self._path), _Module())
        done: list[tuple[_T | None, BaseException | None]] = []

        def bounded() -> None:
            # Whoever gave up does not come back for the answer.
            if module.lock.acquire(timeout=self._timeout):
                try:
                    done.append((self._worked(module, work), None))
                except BaseException as error:  # noqa: BLE001 - raised again by the caller
                    done.append((None, error))
                finally:
                    module.lock.release()

        thread = threading.Thread(target=bounded, name="kagimori-pkcs11", daemon=True)
        thread.start()
        thread.join(self._timeout)
        if not done:
            raise KeyWrapError(
                f"The {self.name} of {self._path} did not answer within {self._timeout:g} s.",
                hint="Check the module, its connection and what else uses the token.",
                transient=True,
            )
        result, error = done[0]
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # without an error there is a result

    def _worked(self, module: _Module, work: Callable[[Opened], _T]) -> _T:
        failure = _failure_class()
        try:
            return work(self._session(module))
        except failure:
            self._drop(module)
        return work(self._session(module))

    def _session(self, module: _Module) -> Opened:
        held = module.opened.get(self._place)
        if held is not None:
            return held
        failure = _failure_class()
        try:
            try:
                held = self._open(module)
            except failure:
                if module.opened and not self._was_there:
                    raise
                # Some modules look for tokens only when they are initialised.
                _restart(module)
                held = self._open(module)
        except failure as error:
            raise self._unavailable(type(error).__name__) from None
        module.opened[self._place] = held
        self._was_there = True
        return held

    def _open(self, module: _Module) -> Opened:
        import pkcs11

        library = self._library(module)
        slot, token = self._found(library.get_slots(token_present=True))
        pin = self._pin()
        if self._refused is not None and self._refused[0] == pin:
            raise self._refused[1]
        is_in = any(
            other.slot.slot_id == slot.slot_id for other in module.opened.values()
        )
        if pin is None or is_in:
            return Opened(token.open(), slot)
        try:
            return Opened(token.open(user_pin=pin), slot)
        except pkcs11.UserAlreadyLoggedIn:
            return Opened(token.open(), slot)
        except (
            pkcs11.PinIncorrect,
            pkcs11.PinInvalid,
            pkcs11.PinLenRange,
            pkcs11.PinLocked,
            pkcs11.PinExpired,
            pkcs11.UserPinNotInitialized,
        ) as error:
            kind = type(error).__name__
            refusal = KeyWrapError(
                f"The {self.name} refuses the PIN ({kind}).",
                hint="Unlock the token or set its PIN anew (pkcs11-tool --init-pin)."
                if kind in {"PinLocked", "PinExpired", "UserPinNotInitialized"}
                else "Correct the PIN before the token locks; it is not tried again.",
            )
            self._refused = pin, refusal
            raise refusal from None

    def _library(self, module: _Module) -> Library:
        import pkcs11

        if module.library is None:
            try:
                library = pkcs11.lib(str(self._path))
            except pkcs11.PKCS11Error:
                raise KeyWrapError(
                    f"The PKCS#11 module {self._path} cannot be loaded.",
                    hint="Check that it is the vendor's PKCS#11 library for this machine, and "
                    "its own configuration.",
                ) from None
            is_inherited = any(
                pid != os.getpid() and path == self._path for pid, path in _MODULES
            )
            module.library = library
            if is_inherited:
                _restart(module)
        return module.library

    def _found(self, slots: Iterable[pkcs11.Slot]) -> tuple[pkcs11.Slot, pkcs11.Token]:
        import pkcs11

        found = []
        labels = set()
        for slot in slots:
            if self._slot is not None and slot.slot_id != self._slot:
                continue
            # Another token's trouble is not ours.
            with contextlib.suppress(pkcs11.PKCS11Error):
                token = slot.get_token()
                labels.add(token.label)
                if self._label in {None, token.label}:
                    found.append((slot, token))
        if not found:
            raise pkcs11.NoSuchToken(", ".join(sorted(filter(None, labels))))
        if len(found) > 1:
            raise KeyWrapError(
                f"Several tokens of {self._path} are labelled {self._label}.",
                hint="Name the slot too: slot="
                + " or slot=".join(str(slot.slot_id) for slot, _ in found)
                + ".",
            )
        return found[0]

    def _drop(self, module: _Module) -> None:
        held = module.opened.get(self._place)
        if held is None:
            return
        for place, other in list(module.opened.items()):
            if other.slot.slot_id == held.slot.slot_id:
                del module.opened[place]
                with contextlib.suppress(_failure_class()):
                    other.session.close()

    def _unavailable(self, kind: str) -> KeyWrapError:
        if self._was_there:
            return KeyWrapError(
                f"The {self.name} of {self._path} is gone.",
                hint="Plug it in or start it again; nothing else is to be done here.",
                detail=kind,
                transient=True,
            )
        is_missing = kind == "NoSuchToken"
        return KeyWrapError(
            f"There is no {self.name} in {self._path}."
            if is_missing
            else f"The {self.name} of {self._path} cannot be opened.",
            hint="Check token= and the module's configuration; pkcs11-tool -L lists tokens.",
            detail=kind,
            transient=not is_missing,
        )

    def __repr__(self) -> str:
        return f"<Token {self.name}>"


def _failure_class() -> type[Exception]:
    import pkcs11

    return pkcs11.PKCS11Error


def _restart(module: _Module) -> None:
    """
    Initialise a module anew: every session of this process with it ends.
    """
    if module.library is not None:
        module.opened.clear()
        with contextlib.suppress(_failure_class()):
            module.library.finalize()
        module.library.initialize()


def require_package() -> None:
    """
    Refuse to go on without python-pkcs11.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pkcs11  # noqa: F401
    except ImportError:
        raise ConfigError(
            "PKCS#11 needs a package that is not installed.",
            hint="pip install 'kagimori[pkcs11]'",
        ) from None
