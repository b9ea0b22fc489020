"""
Rewriting a ``<key>`` without making another key of it: its dates, or what wraps its secret.

Rules of this module:

1. Whatever is not named stays as it was: id, creation, descriptor, algorithm, comments.
2. The secret travels as the XML text of its element, as wrappers take it; no key bytes are
   taken out of it.
"""

from __future__ import annotations

from kagimori.errors import RingMalformedError
from kagimori.keys.protection import descriptor, elements, ticks, xml
from kagimori.keys.protection.descriptor import Unwrap
from kagimori.keys.protection.elements import StoredKey
from kagimori.keys.protection.ticks import Ticks
from kagimori.keys.store import Element
from kagimori.keys.wrapping import WrappedSecret

_MASTER = "masterKey"


def with_dates(stored: StoredKey, activates: Ticks, expires: Ticks) -> Element:
    """
    Return a key's element with another activation and expiration.
    """
    root = xml.parse(stored.text)
    for tag, date in (("activationDate", activates), ("expirationDate", expires)):
        node = root.find(tag)
        if node is None:
            raise RingMalformedError("A key of the ring lacks a date.")
        node.clear()
        node.text = ticks.write(date)
    return Element(stored.name, xml.write(root))


def opened_key(stored: StoredKey, unwrap: Unwrap) -> xml.Element:
    """
    Return a key's element with its secret in the clear: for memory only.

    Raises:
        KeyRingError: the secret cannot be opened.
    """
    root = xml.parse(stored.text)
    outer = root.find("descriptor")
    if outer is None:
        raise RingMalformedError(f"The key {stored.id} has no descriptor.")
    descriptor.open_secrets(outer, stored.id, unwrap)
    return root


def secret_in(root: xml.Element, key_id: str) -> str:
    """
    Return the secret of an opened key as XML text, as wrappers take it.

    Raises:
        RingMalformedError: the key holds no master key.
    """
    return xml.write(_master_in(root, key_id)[1])


def with_envelope(root: xml.Element, key_id: str, wrapped: WrappedSecret) -> str:
    """
    Return the XML text of an opened key with its secret wrapped anew.
    """
    parent, master = _master_in(root, key_id)
    secret = xml.element(
        descriptor.SECRET_TAG, {"decryptorType": wrapped.decryptor_type}
    )
    secret.append(xml.parse(wrapped.child, what="A wrapped secret"))
    at = list(parent).index(master)
    parent[at] = secret
    text = xml.write(root)
    parent[at] = master
    return text


def _master_in(root: xml.Element, key_id: str) -> tuple[xml.Element, xml.Element]:
    outer = root.find("descriptor")
    if outer is not None:
        inner = xml.only_child(outer)
        master = inner.find(_MASTER)
        if master is not None:
            master.tail = None
            return inner, master
    raise RingMalformedError(f"The key {key_id} holds no master key.")


def envelopes_in(stored: StoredKey) -> tuple[WrappedSecret, ...]:
    """
    Return the envelopes around a key's secret as they lie; empty for a clear key.
    """
    return tuple(
        WrappedSecret(node.get("decryptorType", ""), xml.write(xml.only_child(node)))
        for node in xml.parse(stored.text).iter(descriptor.SECRET_TAG)
    )


def recovery_element(key_id: str, wrapped: WrappedSecret) -> Element:
    """
    Return the stored element with a key's second envelope.
    """
    root = elements.recovery_element(key_id, wrapped)
    return Element(elements.recovery_name(key_id), xml.write(root))
