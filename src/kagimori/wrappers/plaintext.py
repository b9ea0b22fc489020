"""
No wrapping at all, said explicitly: whoever reads the store has the keys.
"""

from __future__ import annotations

from kagimori.addresses import Address
from kagimori.errors import ConfigError, KagimoriError, KeyWrapError
from kagimori.events import EventSink
from kagimori.keys.protection import descriptor
from kagimori.keys.wrapping import WrappedSecret


class PlaintextWrapper:
    """
    The null encryptor of ASP.NET Core Data Protection (`aspnet-data-protection.md` 3.3).

    For development, and for places that are as secret as the keys themselves.
    """

    @property
    def name(self) -> str:
        """
        The word ``plaintext``.
        """
        return "plaintext"

    @property
    def is_plaintext(self) -> bool:
        """
        True: secrets stay readable.
        """
        return True

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        """
        Return the element as it is, in .NET's envelope for that.
        """
        return descriptor.null_wrap(plaintext)

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        """
        Whether the envelope is .NET's null envelope.
        """
        return descriptor.is_null(wrapped)

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        """
        Return the element in the envelope.

        Raises:
            KeyWrapError: the envelope is malformed.
        """
        try:
            return descriptor.null_unwrap(wrapped)
        except KagimoriError as error:
            raise KeyWrapError(f"The clear key {context} is malformed.") from error


def open_wrapper(address: Address, events: EventSink) -> PlaintextWrapper:
    """
    Return the wrapper of ``plaintext:``.

    Raises:
        ConfigError: something follows the colon.
    """
    address.allow()
    if address.rest:
        raise ConfigError("Nothing follows plaintext: in its address.")
    return PlaintextWrapper()
