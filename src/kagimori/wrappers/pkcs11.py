"""
Wrapping by an AES key of a PKCS#11 token: a hardware security module, a smart card, SoftHSM.

    pkcs11:/path/module.so?token=LABEL&key=LABEL&pin-env=NAME     or pin-file=/path
        key=LABEL;id=01     where several keys have that label
        also=LABEL          another key, for reading, after a new one took over; repeatable
        slot=NUMBER         instead of token=, or beside it
        mechanism=…         aes-gcm or aes-key-wrap

Rules of this module:

1. Only a data key goes into the token (`kagimori.wrappers.envelope`); the AES key stays there.
2. AES-GCM is chosen where the token has it: the key ring key's id is authenticated by the token
   itself, the AES key needs CKA_ENCRYPT and CKA_DECRYPT and nothing else, and the data key never
   becomes an object of the token. The AES key wrap of RFC 3394 is for tokens without GCM; there
   the envelope alone binds the id.
3. What is wrapped says by its first byte how, so that both open whatever is chosen.
4. Keys are found by label and id. Several that fit are refused: which one wrapped would be luck.
5. PKCS#11 knows no versions of a key: a new key has a new label or id, and the old one is named
   by ``also=``. An envelope opens by the key that it names, if that is one of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import quote

from kagimori.addresses import Address, absolute_path, secret_names
from kagimori.errors import ConfigError, KagimoriError, KeyWrapError
from kagimori.events import EventSink
from kagimori.keys.findings import Finding
from kagimori.secret_sources import warn_of_mode
from kagimori.wrappers.envelope import Envelope, EnvelopeFormat, named
from kagimori.wrappers.pkcs11_sealing import (
    GCM,
    KEY_WRAP,
    LENGTHS,
    MARKS,
    AesKey,
    gcm_open,
    gcm_seal,
    key_unwrap,
    key_wrap,
)
from kagimori.wrappers.pkcs11_token import KeyName, Opened, Token, require_package
from kagimori.wrappers.sealing import Sealed, SealingWrapper, UnopenableError

ENVELOPES = EnvelopeFormat("pkcs11", "Pkcs11XmlDecryptor")

_Result = TypeVar("_Result")

TIMEOUT = 10.0
"""Seconds that a call may take: smart cards are slow, and serve one after the other."""

_NEEDED = {
    (GCM, "seal"): ("encrypt", "CKA_ENCRYPT"),
    (GCM, "open"): ("decrypt", "CKA_DECRYPT"),
    (KEY_WRAP, "seal"): ("wrap_key", "CKA_WRAP"),
    (KEY_WRAP, "open"): ("unwrap_key", "CKA_UNWRAP"),
}
_REFUSALS = {
    "EncryptedDataInvalid",
    "EncryptedDataLenRange",
    "WrappedKeyInvalid",
    "WrappedKeyLenRange",
}
_KEY = re.compile(r"([^;]{0,255})(?:;id=((?:[0-9A-Fa-f]{2}){1,255}))?")


class Pkcs11Wrapper(SealingWrapper):
    """
    Wraps by a key of a token. Thread-safe; a forked process logs in anew.

    Args:
        module: the path of the vendor's PKCS#11 library.
        key: label of the AES key, ``LABEL;id=HEX`` where that is not enough.
        token: the token's label.
        slot: the slot's number, where the label is not enough.
        pin: returns the user's PIN; asked whenever the token is opened.
        also: further keys, for reading.
        mechanism: `GCM` or `KEY_WRAP`; left out: what the token has, in this order.
        timeout: seconds that a call may take.

    Raises:
        ConfigError: something is missing or malformed, or there is no such library.
    """

    def __init__(
        self,
        module: Path,
        key: str,
        *,
        token: str | None = None,
        slot: int | None = None,
        pin: Callable[[], str | None] = lambda: None,
        also: Sequence[str] = (),
        mechanism: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        if token is None and slot is None:
            raise ConfigError(
                "A pkcs11: address names a token.", hint="Add token=LABEL."
            )
        if mechanism not in {None, GCM, KEY_WRAP}:
            raise ConfigError(
                f"The mechanism of a pkcs11: address is {GCM} or {KEY_WRAP}."
            )
        if not module.is_file():
            raise ConfigError(
                f"There is no PKCS#11 module {module}.",
                hint="Name the vendor's library, such as /usr/lib/softhsm/libsofthsm2.so.",
            )
        opened = Token(module, label=token, slot=slot, pin=pin, timeout=timeout)
        names = tuple(_key_name(one) for one in (key, *also))
        self._keys = _TokenKeys(opened, names, mechanism)
        super().__init__(self._keys, ENVELOPES)

    def examine(self) -> tuple[Finding, ...]:
        """
        Try the rights to wrap and to unwrap, and look whether the key can leave the token.
        """
        return (*super().examine(), self._keys.examine_staying())


def open_wrapper(address: Address, events: EventSink) -> Pkcs11Wrapper:
    """
    Return the wrapper of a ``pkcs11:`` address.

    Raises:
        ConfigError: see `Pkcs11Wrapper`; or the PIN is not where it is said to be.
    """
    names = ("token", "slot", "key", "also", "mechanism", *secret_names("pin"))
    address.allow(*names)
    slot = address.option("slot")
    if slot is not None and not re.fullmatch("[0-9]{1,10}", slot):
        raise ConfigError("The slot of a pkcs11: address is a number.")
    try:
        given = address.secret("pin")
        pin = None if given is None else given.decode()
    except UnicodeDecodeError:
        raise ConfigError("The PIN of the pkcs11: address is not UTF-8.") from None
    file = address.option("pin-file")
    if file is not None:
        warn_of_mode(Path(file), events)
    return Pkcs11Wrapper(
        absolute_path(address.path, "A PKCS#11 module"),
        address.option("key") or "",
        token=address.option("token"),
        slot=None if slot is None else int(slot),
        pin=lambda: pin,
        also=address.options.get("also", ()),
        mechanism=address.option("mechanism"),
    )


class _TokenKeys:
    """
    The `kagimori.wrappers.sealing.Sealer` of this module.
    """

    def __init__(
        self, token: Token, names: Sequence[KeyName], mechanism: str | None
    ) -> None:
        self._token = token
        self._names = names
        self._mechanism = mechanism

    @property
    def name(self) -> str:
        return f"PKCS#11 key {self._names[0]} of {self._token.name}"

    def seal(self, data_key: bytes, context: str) -> Sealed:
        name = self._names[0]

        def work(opened: Opened) -> Sealed:
            mechanism = self._chosen(opened)
            key = self._key(opened, name, mechanism, "seal")
            if mechanism == GCM:
                wrapped = gcm_seal(key, data_key, context)
            else:
                wrapped = key_wrap(opened.session, key, data_key)
            return Sealed(MARKS[mechanism] + wrapped, _uri(key), key.id.hex())

        return self._run(work, "wrap")

    def is_named(self, envelope: Envelope) -> bool:
        # Which key that is shows in the token only.
        return True

    def open(self, envelope: Envelope, context: str) -> bytes:
        mark, wrapped = envelope.wrapped_key[:1], envelope.wrapped_key[1:]
        mechanism = next((one for one, byte in MARKS.items() if byte == mark), None)
        if mechanism is None or len(envelope.wrapped_key) != LENGTHS[mechanism]:
            raise UnopenableError(
                f"The envelope of the key {context} was not made by a PKCS#11 token, or is of "
                "a newer version.",
                hint="Restore the ring from a backup, or upgrade Kagimori.",
            )

        def work(opened: Opened) -> bytes:
            name = self._named(opened, envelope, context)
            key = self._key(opened, name, mechanism, "open")
            if mechanism == GCM:
                return gcm_open(key, wrapped, context)
            return key_unwrap(key, wrapped)

        return self._run(work, "unwrap")

    def dud(self) -> Sealed:
        def work(opened: Opened) -> Sealed:
            mechanism = self._chosen(opened)
            key = self._found(opened, self._names[0])
            junk = bytes(LENGTHS[mechanism] - 1)
            return Sealed(MARKS[mechanism] + junk, _uri(key), key.id.hex())

        return self._run(work, "find")

    def examine_staying(self) -> Finding:
        """
        Look whether the key can leave the token.
        """
        right = "key stays in the token"

        def work(opened: Opened) -> tuple[bool, bool]:
            from pkcs11 import Attribute

            key = self._found(opened, self._names[0])
            return bool(key[Attribute.SENSITIVE]), bool(key[Attribute.EXTRACTABLE])

        try:
            is_sensitive, is_extractable = self._run(work, "read")
        except KagimoriError as error:
            return Finding(right, ok=False, text=error.text, remedy=error.hint)
        if is_sensitive and not is_extractable:
            return Finding(right, ok=True, text=f"{self.name} cannot be read out.")
        return Finding(
            right,
            ok=False,
            text=f"{self.name} can be read out of its token (CKA_SENSITIVE "
            f"{is_sensitive}, CKA_EXTRACTABLE {is_extractable}).",
            remedy="Make a key with CKA_SENSITIVE and without CKA_EXTRACTABLE, wrap by that "
            "one, and rewrap the ring.",
        )

    def _run(self, work: Callable[[Opened], _Result], verb: str) -> _Result:
        require_package()
        from pkcs11 import PKCS11Error

        try:
            return self._token.run(work)
        except PKCS11Error as error:
            # Not chained: frames of the call hold the data key.
            raise self._fault(verb, type(error).__name__, str(error)) from None

    def _fault(self, verb: str, kind: str, said: str) -> KeyWrapError:
        if kind in {"MechanismInvalid", "MechanismParamInvalid"}:
            return KeyWrapError(
                f"{self.name} cannot {verb}: its token does not have the mechanism.",
                hint=f"Try mechanism={KEY_WRAP}, or mechanism={GCM}.",
                detail=kind,
            )
        # 0x68 is CKR_KEY_FUNCTION_NOT_PERMITTED.
        if "0x68" in said or kind in {"UserNotLoggedIn", "FunctionRejected"}:
            return KeyWrapError(
                f"{self.name} may not {verb}.",
                hint="Give its PIN, and set CKA_ENCRYPT and CKA_DECRYPT (CKA_WRAP and "
                f"CKA_UNWRAP for {KEY_WRAP}) on the key.",
                detail=kind,
            )
        # Tokens answer an altered text with anything up to CKR_GENERAL_ERROR, and a lost
        # connection too: which it is shows in whether they still do anything.
        if verb == "unwrap" and (kind in _REFUSALS or self._is_well()):
            return UnopenableError(
                f"{self.name} does not open what the ring holds: it was wrapped by another key, "
                "or altered.",
                hint="Name the key that the ring was made with, by also= if it is an old one. "
                "If it is that one, restore the ring from a backup.",
                detail=kind,
            )
        return KeyWrapError(
            f"{self.name} could not {verb}.",
            hint="Check the token and its module's log.",
            detail=kind,
            transient=True,
        )

    def _is_well(self) -> bool:
        from pkcs11 import FunctionNotSupported, PKCS11Error, RandomNoRNG

        try:
            self._token.run(lambda opened: opened.session.generate_random(64))
        except (FunctionNotSupported, RandomNoRNG):
            return True
        except (PKCS11Error, KeyWrapError):
            return False
        return True

    def _chosen(self, opened: Opened) -> str:
        if self._mechanism is not None:
            return self._mechanism
        from pkcs11 import Mechanism

        has = opened.slot.get_mechanisms()
        return KEY_WRAP if Mechanism.AES_GCM not in has else GCM

    def _named(self, opened: Opened, envelope: Envelope, context: str) -> KeyName:
        """
        Return which of the configured keys an envelope names.
        """
        missing = None
        for name in self._names:
            try:
                key = self._found(opened, name)
            except KeyWrapError as error:
                missing = missing or error
                continue
            if named(_uri(key), key.id.hex()) == envelope.key:
                return name
        if missing is not None:
            raise missing
        ours = ", ".join(str(name) for name in self._names)
        raise UnopenableError(
            f"The key {context} is wrapped by {envelope.key}, which is none of those named "
            f"here ({ours}).",
            hint="Name it for reading: also=LABEL.",
        )

    def _key(self, opened: Opened, name: KeyName, mechanism: str, verb: str) -> AesKey:
        """
        Return a key that may do what is wanted.
        """
        key = self._found(opened, name)
        method, attribute = _NEEDED[mechanism, verb]
        # The library gives a key the methods that its attributes allow.
        if not hasattr(key, method):
            raise KeyWrapError(
                f"The PKCS#11 key {name} of {self._token.name} lacks the attribute "
                f"{attribute}.",
                hint="Set it, if the token lets you, or make another key with it.",
            )
        return key

    def _found(self, opened: Opened, name: KeyName) -> AesKey:
        from pkcs11 import Attribute, KeyType, ObjectClass, SecretKey

        key = opened.keys.get(name)
        if key is not None:
            return key
        wanted: dict[Attribute, object] = {Attribute.CLASS: ObjectClass.SECRET_KEY}
        if name.label:
            wanted[Attribute.LABEL] = name.label
        if name.id:
            wanted[Attribute.ID] = name.id
        found = [
            one
            for one in opened.session.get_objects(wanted)
            if isinstance(one, SecretKey) and one.key_type == KeyType.AES
        ]
        if not found:
            raise KeyWrapError(
                f"The {self._token.name} has no AES key {name} that is seen with this PIN.",
                hint="Check key= and the PIN; pkcs11-tool --login --keygen --key-type AES:32 "
                "--sensitive --label NAME makes a key.",
            )
        if len(found) > 1:
            ids = sorted(one.id.hex() for one in found)
            raise KeyWrapError(
                f"The {self._token.name} has several AES keys {name} (ids "
                f"{', '.join(ids)}).",
                hint=f"Name one of them: key={name.label};id={ids[0]}.",
            )
        # Its methods are there by its attributes: the library's types do not tell.
        opened.keys[name] = key = cast("AesKey", found[0])
        return key


def _key_name(text: str) -> KeyName:
    matched = _KEY.fullmatch(text)
    if matched is None or not text:
        raise ConfigError(
            "A key of a token is named by its label.",
            hint="Write key=LABEL, or key=LABEL;id=01 with its id in hexadecimal digits.",
        )
    return KeyName(matched[1], bytes.fromhex(matched[2] or ""))


def _uri(key: AesKey) -> str:
    """
    Return a key's name as RFC 7512 has it; the id stands beside it.
    """
    return f"pkcs11:object={quote(key.label, safe=' ')};type=secret-key".replace(
        " ", "%20"
    )
