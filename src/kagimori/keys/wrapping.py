"""
The seam behind which wrapping keys live: vaults, KMS, certificates, passphrases.

A wrapper turns the XML of one secret element into the child of an ``encryptedSecret`` and back
(`aspnet-data-protection.md` 2.4). It knows nothing of rings, dates or stores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WrappedSecret:
    """
    What lies inside an ``encryptedSecret`` element.

    Attributes:
        decryptor_type: the .NET type name by which readers choose the unwrapper.
        child: the one child element, as XML text.
    """

    decryptor_type: str
    child: str = field(repr=False)


class KeyWrapper(Protocol):
    """
    Wraps and unwraps the secret element of a ring key.
    """

    @property
    def name(self) -> str:
        """
        Name the wrapping key and its version for people: never a secret.
        """
        ...

    @property
    def is_plaintext(self) -> bool:
        """
        Whether this wrapper leaves secrets readable.
        """
        ...

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        """
        Wrap the XML text of a secret element.

        Args:
            plaintext: the whole element as XML text.
            context: the key's id, bound into the envelope where its format can.

        Raises:
            KeyWrapError: the wrapping key refused or did not answer.
        """
        ...

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        """
        Whether this wrapper is the one for such an envelope, judged by its type alone.
        """
        ...

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        """
        Return the XML text of the secret element.

        Raises:
            KeyWrapError: wrong wrapping key, altered envelope, or no answer (then `transient`).
        """
        ...
