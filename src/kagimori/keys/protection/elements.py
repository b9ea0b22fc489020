"""
The elements of a ring as XML, exactly as ASP.NET Core Data Protection writes and reads them.

Rules of this module (`aspnet-data-protection.md` section 2):

1. A key whose id or dates cannot be read is skipped, and said so; a revocation that cannot be
   read is fatal, and so are two keys of one id.
2. A key whose descriptor cannot be read, or whose secret cannot be unwrapped, is still there:
   it fails when it is used, and while it is there no key is minted in its place.
3. What is ours lies in root elements of the namespace `urn:kagimori:ring:1`, which .NET skips.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from kagimori.errors import KeyRingError, RingMalformedError
from kagimori.keys.protection import descriptor, ticks, xml
from kagimori.keys.protection.algorithms import ProtectionAlgorithm
from kagimori.keys.protection.ticks import Ticks
from kagimori.keys.wrapping import WrappedSecret

STATE = "state"
"""The name of our state element in every store."""

_STATE_TAG = f"{{{xml.KAGIMORI}}}state"
_RECOVERY_TAG = f"{{{xml.KAGIMORI}}}recovery"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """
    A ``<key>`` as it lies in a store; its secret has not been looked at.

    Attributes:
        name: the element's name in the store.
        text: the element as stored.
        algorithm: ``None`` where the descriptor names none that is known here.
        decryptors: the classes of what its secret is wrapped with; empty for a clear key.
        opens_in_dotnet: whether .NET nodes may be able to open it.
    """

    id: str
    created: Ticks
    activates: Ticks
    expires: Ticks
    name: str
    text: str = field(repr=False)
    algorithm: ProtectionAlgorithm | None
    decryptors: tuple[str, ...]
    opens_in_dotnet: bool = True

    @property
    def is_clear(self) -> bool:
        """
        Whether whoever reads the store reads the secret.
        """
        return all(name == "NullXmlDecryptor" for name in self.decryptors)


@dataclass(frozen=True, slots=True)
class Revocation:
    """
    A ``<revocation>``: of one key, or of all that were created before a date.

    Attributes:
        key_id: ``None`` stands for ``*``.
        date: for one key it informs only; for ``*`` keys created strictly before it are revoked.
        name: the element's name in the store; empty where it does not lie in one yet.
    """

    key_id: str | None
    date: Ticks
    name: str = ""


@dataclass(frozen=True, slots=True)
class RingState:
    """
    What is ours in a ring and has no place in .NET's elements.

    Attributes:
        generation: raised by each commit of ours; 0 where there was none.
        application: the application name that the ring was made for; informs only.
        reasons: why keys were made or revoked, by key id.
        entered: when keys of other rings came into this one, by key id.
        protected: when keys were first seen to protect, by key id: such a key does not wait,
            whatever a clock that was set back shows.
        commits: marks of the last commits of ours, by which a writer whose answer was lost
            knows its own.
    """

    generation: int = 0
    application: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    entered: Mapping[str, Ticks] = field(default_factory=dict)
    protected: Mapping[str, Ticks] = field(default_factory=dict)
    commits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovery:
    """
    The second envelope of a key, for when the first cannot be opened any more.

    It lies apart from the key: a second ``<encryptedSecret>`` inside would make .NET call the
    key unreadable.

    Attributes:
        name: the element's name in the store.
    """

    key_id: str
    wrapped: WrappedSecret = field(repr=False)
    name: str


# --- names ---------------------------------------------------------------------------------


def canonical_id(text: str) -> str:
    """
    Return a GUID of any spelling in ours: lower case, with hyphens.

    Raises:
        RingMalformedError: this is no GUID.
    """
    try:
        return str(uuid.UUID(text.strip().strip("()")))
    except ValueError:
        raise RingMalformedError("A key id in the ring is no GUID.") from None


def friendly_name(root: xml.Element) -> str:
    """
    Return the name under which .NET stores an element (2.6).

    Elements that are no key, revocation or state of ours are named by what they hold.
    """
    try:
        if root.tag == "key":
            return f"key-{canonical_id(root.get('id', ''))}"
        if root.tag == "revocation":
            revocation = read_revocation(root)
            if revocation.key_id is not None:
                return f"revocation-{revocation.key_id}"
            return f"revocation-{ticks.write_compact(revocation.date)}"
        if is_recovery(root):
            return recovery_name(canonical_id(root.get("key", "")))
    except RingMalformedError:
        pass
    if root.tag == _STATE_TAG:
        return STATE
    digest = uuid.uuid5(uuid.NAMESPACE_URL, xml.write(root))
    return f"{re.sub('[^A-Za-z0-9_-]', '', xml.split(root.tag)[1])[:32]}-{digest}"


def recovery_name(key_id: str) -> str:
    """
    Return the name of the element with a key's second envelope.
    """
    return f"recovery-{key_id}"


# --- reading -------------------------------------------------------------------------------


def is_state(root: xml.Element) -> bool:
    """
    Whether a root element is our state element.
    """
    return bool(root.tag == _STATE_TAG)


def is_recovery(root: xml.Element) -> bool:
    """
    Whether a root element is a second envelope.
    """
    return bool(root.tag == _RECOVERY_TAG)


def read_recovery(root: xml.Element, name: str) -> Recovery:
    """
    Read a second envelope.

    Raises:
        RingMalformedError: it names no key or holds no envelope.
    """
    wrapped = WrappedSecret(
        root.get("decryptorType", ""), xml.write(xml.only_child(root))
    )
    return Recovery(canonical_id(root.get("key", "")), wrapped, name)


def read_key(root: xml.Element, name: str, text: str) -> StoredKey:
    """
    Read id, dates and algorithm of a ``<key>``.

    Raises:
        RingMalformedError: id or dates cannot be read; such a key is skipped.
    """
    outer = root.find("descriptor")
    algorithm = None
    types: tuple[str, ...] = ()
    if outer is not None:
        secrets = outer.iter(descriptor.SECRET_TAG)
        types = tuple(secret.get("decryptorType", "") for secret in secrets)
        try:
            algorithm = descriptor.read_algorithm(outer)
        except KeyRingError:
            algorithm = None
    return StoredKey(
        canonical_id(root.get("id", "")),
        _date(root, "creationDate"),
        _date(root, "activationDate"),
        _date(root, "expirationDate"),
        name,
        text,
        algorithm,
        tuple(map(descriptor.class_name, types)),
        not any(map(_is_ours, types)),
    )


def _is_ours(type_name: str) -> bool:
    # No .NET package has these; whoever opens them is a node of ours.
    return type_name.partition(",")[0].strip().startswith("Kagimori.")


def read_revocation(root: xml.Element, name: str = "") -> Revocation:
    """
    Read a ``<revocation>``.

    Raises:
        RingMalformedError: it cannot be read, which is fatal for the whole ring.
    """
    key = root.find("key")
    if key is None:
        raise RingMalformedError("A revocation in the ring names no key.")
    named = key.get("id", "").strip()
    date = _date(root, "revocationDate")
    return Revocation(None if named == "*" else canonical_id(named), date, name)


def read_state(root: xml.Element) -> RingState:
    """
    Read our state element.

    Raises:
        RingMalformedError: the generation is no number, or a date is none.
    """
    generation = root.get("generation", "0")
    if not re.fullmatch(r"\d{1,18}", generation, re.ASCII):
        raise RingMalformedError("The ring's state names no generation.")
    application = root.find(f"{{{xml.KAGIMORI}}}application")
    reasons = {
        reason.get("key", ""): xml.text_of(reason)
        for reason in root.findall(f"{{{xml.KAGIMORI}}}reason")
    }
    return RingState(
        int(generation),
        None if application is None else application.text or "",
        reasons,
        _instants(root, "entered"),
        _instants(root, "protected"),
        tuple(root.get("commits", "").split()),
    )


def _instants(root: xml.Element, tag: str) -> dict[str, Ticks]:
    found = root.findall(f"{{{xml.KAGIMORI}}}{tag}")
    return {one.get("key", ""): ticks.parse(one.get("date", "")) for one in found}


def _date(root: xml.Element, tag: str) -> Ticks:
    found = root.find(tag)
    if found is None:
        raise RingMalformedError("An element of the ring lacks a date.")
    return ticks.parse(xml.text_of(found))


# --- writing -------------------------------------------------------------------------------


def key_element(
    key_id: str,
    dates: tuple[Ticks, Ticks, Ticks],
    algorithm: ProtectionAlgorithm,
    wrapped: WrappedSecret,
) -> xml.Element:
    """
    Return a ``<key>``, in the element order of 2.2.

    Args:
        dates: created, activates, expires.
        algorithm: one of `ALGORITHMS`.
    """
    root = xml.element("key", {"id": key_id, "version": "1"})
    tags = ("creationDate", "activationDate", "expirationDate")
    for tag, date in zip(tags, dates, strict=True):
        xml.child(root, tag, text=ticks.write(date))
    root.append(descriptor.write(algorithm, wrapped))
    return root


def revocation_element(revocation: Revocation, reason: str = "") -> xml.Element:
    """
    Return a ``<revocation>`` (2.5).
    """
    root = xml.element("revocation", {"version": "1"})
    xml.child(root, "revocationDate", text=ticks.write(revocation.date))
    xml.child(root, "key", {"id": revocation.key_id or "*"})
    xml.child(root, "reason", text=_printable(reason))
    return root


def recovery_element(key_id: str, wrapped: WrappedSecret) -> xml.Element:
    """
    Return the element with a key's second envelope.
    """
    attributes = {"key": key_id, "decryptorType": wrapped.decryptor_type}
    root = xml.element(_RECOVERY_TAG, attributes)
    root.append(xml.parse(wrapped.child, what="A wrapped secret"))
    return root


def state_element(state: RingState) -> xml.Element:
    """
    Return our state element.
    """
    root = xml.element(_STATE_TAG, {"generation": str(state.generation)})
    if state.commits:
        root.set("commits", " ".join(state.commits))
    if state.application is not None:
        tag = f"{{{xml.KAGIMORI}}}application"
        xml.child(root, tag, text=_printable(state.application))
    for key_id, reason in state.reasons.items():
        tag = f"{{{xml.KAGIMORI}}}reason"
        xml.child(root, tag, {"key": key_id}, _printable(reason))
    for name, dates in (("entered", state.entered), ("protected", state.protected)):
        for key_id, date in dates.items():
            attributes = {"key": key_id, "date": ticks.write(date)}
            xml.child(root, f"{{{xml.KAGIMORI}}}{name}", attributes)
    return root


def _printable(text: str) -> str:
    # XML 1.0 has no way to write most control characters, not even as references.
    return re.sub(
        "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text
    )
