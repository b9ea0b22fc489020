"""
The wrappers of one ring: which of them wraps, and who opens an envelope.

Rules of this module:

1. An envelope is opened by whichever wrapper says that it is its kind; the one that wraps is
   asked first, the one for disaster recovery last.
2. An adapter's surprise leaves here as a declared error. Of a foreign error only the class is
   kept: its message may quote what was unwrapped.
3. What was wrapped is unwrapped and compared before anybody may store it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from kagimori.crypto.digests import equal
from kagimori.errors import KagimoriError, KeyWrapError, RingMalformedError
from kagimori.keys.protection import descriptor, xml
from kagimori.keys.wrapping import KeyWrapper, WrappedSecret

_REMEDIES = {
    "DpapiXmlDecryptor": "It is wrapped by Windows DPAPI, which only that machine or user "
    "opens: export the ring there.",
    "DpapiNGXmlDecryptor": "It is wrapped by Windows DPAPI-NG, which only members of its "
    "domain open: export the ring there.",
}


@runtime_checkable
class NamesItsKeys(Protocol):
    """
    A wrapper that can say which version of its wrapping key an envelope needs; others need not.
    """

    def key_of(self, wrapped: WrappedSecret) -> str | None:
        """
        Name the wrapping key and version of an envelope, ``None`` where it names none.
        """
        ...


@runtime_checkable
class NamesItsNewest(Protocol):
    """
    A wrapper that can say which version of its wrapping key is the newest; others need not.
    """

    def newest(self) -> str:
        """
        Name the version that `KeyWrapper.wrap` would use.

        Raises:
            KeyWrapError: the vault does not say.
        """
        ...


class Envelopes:
    """
    Wraps for a ring, and opens what lies in it. Thread-safe where the wrappers are.

    Args:
        wrapper: wraps new keys; ``None`` where only clear keys are read.
        also_unwrap: further wrappers, for reading.
        recovery: wraps the second envelope of each key; ``None`` for no second envelope.
    """

    def __init__(
        self,
        wrapper: KeyWrapper | None,
        also_unwrap: Sequence[KeyWrapper] = (),
        recovery: KeyWrapper | None = None,
    ) -> None:
        self.wrapper = wrapper
        self.recovery = recovery
        self._also = tuple(also_unwrap)

    @property
    def all(self) -> tuple[KeyWrapper, ...]:
        """
        All wrappers, in the order in which they are asked.
        """
        named = (self.wrapper, *self._also, self.recovery)
        return tuple(one for one in named if one is not None)

    def read_too(self, wrapper: KeyWrapper) -> None:
        """
        Open what another wrapper wrapped, too.
        """
        if not any(wrapper is one for one in self.all):
            self._also = (*self._also, wrapper)

    def adopt(self, wrapper: KeyWrapper) -> None:
        """
        Wrap by another wrapper from now on; the one before goes on reading.
        """
        if self.wrapper is not None and self.wrapper is not wrapper:
            self._also = (self.wrapper, *self._also)
        self.wrapper = wrapper

    def unwrap(self, wrapped: WrappedSecret, key_id: str) -> str:
        """
        Open an envelope of a key.

        Raises:
            KeyWrapError: nothing named here opens it.
        """
        if descriptor.is_null(wrapped):
            return descriptor.null_unwrap(wrapped)
        failure: KagimoriError | None = None
        for wrapper in self.all:
            if not wrapper.can_unwrap(wrapped):
                continue
            try:
                return wrapper.unwrap(wrapped, key_id)
            except KagimoriError as error:
                found = error
            except Exception as error:  # noqa: BLE001 - rule 2
                found = wrap_surprise(wrapper.name, error)
            # While one of them may yet answer, nobody knows that none opens it.
            if failure is None or getattr(found, "transient", False):
                failure = found
        if failure is not None:
            raise failure
        kind = descriptor.class_name(wrapped.decryptor_type)
        raise KeyWrapError(
            f"The key {key_id} is wrapped for {kind}, which nothing named here opens.",
            hint=_REMEDIES.get(kind, "Name the wrapper that this ring was made with."),
        )

    def key_of(self, wrapped: WrappedSecret) -> tuple[str, KeyWrapper] | None:
        """
        Name the wrapping key that an envelope needs, and the wrapper that knows.
        """
        for wrapper in self.all:
            if wrapper.can_unwrap(wrapped) and isinstance(wrapper, NamesItsKeys):
                try:
                    named = wrapper.key_of(wrapped)
                except KagimoriError:
                    named = None
                if named is not None:
                    return named, wrapper
        return None


def wrap_checked(wrapper: KeyWrapper, secret: str, key_id: str) -> WrappedSecret:
    """
    Wrap the XML text of a secret element, and prove that it comes back (rule 3).

    Raises:
        KeyWrapError: the wrapper refuses, or gives back something else.
    """
    try:
        wrapped = wrapper.wrap(secret, key_id)
        # As it will be read: out of the ring's XML.
        child = xml.write(xml.parse(wrapped.child, what="A wrapped secret"))
        wrapped = WrappedSecret(wrapped.decryptor_type, child)
        back = wrapper.unwrap(wrapped, key_id)
    except KagimoriError:
        raise
    except Exception as error:  # noqa: BLE001 - rule 2
        raise wrap_surprise(wrapper.name, error) from None
    if not _is_same(back, secret):
        raise KeyWrapError(
            f"What {wrapper.name} wrapped does not unwrap to the same; nothing was stored.",
            hint="Wrapping and unwrapping must use the same key.",
        )
    return wrapped


def newest_of(wrapper: KeyWrapper) -> str | None:
    """
    Name the wrapping-key version that a wrapper would wrap with, ``None`` if it cannot say.

    Raises:
        KeyWrapError: the vault does not answer.
    """
    if not isinstance(wrapper, NamesItsNewest):
        return None
    try:
        return wrapper.newest()
    except KagimoriError:
        raise
    except Exception as error:  # noqa: BLE001 - rule 2
        raise wrap_surprise(wrapper.name, error) from None


def lies_under(
    wrapped: WrappedSecret, wrapper: KeyWrapper, version: str | None
) -> bool:
    """
    Whether an envelope is known to be a wrapper's own, under a version of its wrapping key.
    """
    return (
        version is not None
        and wrapper.can_unwrap(wrapped)
        and isinstance(wrapper, NamesItsKeys)
        and wrapper.key_of(wrapped) == version
    )


def wrap_surprise(name: str, error: Exception) -> KeyWrapError:
    """
    Return the declared error of a wrapper that failed in an unforeseen way (rule 2).
    """
    text = f"The wrapper {name} failed in an unforeseen way."
    return KeyWrapError(text, detail=type(error).__name__, transient=True)


def _is_same(back: str, secret: str) -> bool:
    # In one spelling, so that prefixes of namespaces do not count.
    try:
        return equal(*(xml.write(xml.parse(text)) for text in (back, secret)))
    except RingMalformedError:
        return False
