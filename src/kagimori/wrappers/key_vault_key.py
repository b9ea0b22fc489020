"""
Keys of Azure Key Vault: their ids, and which of them can wrap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from kagimori.errors import KeyWrapError

_ID = re.compile(r"/keys/([0-9A-Za-z-]{1,127})(?:/([0-9A-Za-z]{1,64}))?/?")
_AUTHORITY = re.compile(r"([0-9a-z](?:[0-9a-z.-]{0,253}[0-9a-z])?)(:[0-9]{1,5})?")
# "Azure Key Vault security worlds": the domains of the clouds, of vaults and of managed HSMs.
_SUFFIXES = (
    ".vault.azure.net",
    ".vault.azure.cn",
    ".vault.usgovcloudapi.net",
    ".vault.microsoftazure.de",
    ".managedhsm.azure.net",
    ".managedhsm.azure.cn",
    ".managedhsm.usgovcloudapi.net",
)
_OPERATIONS = frozenset({"wrapKey", "unwrapKey"})
_RSA = frozenset({"RSA", "RSA-HSM"})


@dataclass(frozen=True, slots=True)
class VaultKeyId:
    """
    The id of a key in a vault: ``https://{authority}/keys/{name}[/{version}]``.
    """

    authority: str
    name: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> VaultKeyId:
        """
        Take an id apart.

        Raises:
            ValueError: it is none: another scheme, a user, a query, another path.
        """
        parts = urlsplit(text)
        authority = _AUTHORITY.fullmatch(parts.netloc.lower())
        path = _ID.fullmatch(parts.path)
        extra = parts.query or parts.fragment or text != text.strip()
        if parts.scheme != "https" or authority is None or path is None or extra:
            raise ValueError
        port = authority[2] or ""
        return cls(authority[1] + ("" if port == ":443" else port), path[1], path[2])

    @property
    def is_in_hsm(self) -> bool:
        """
        Whether it lies in a managed HSM, which has roles of its own.
        """
        return ".managedhsm." in self.authority

    @property
    def url(self) -> str:
        """
        The id as text.
        """
        version = f"/{self.version}" if self.version else ""
        return f"https://{self.authority}/keys/{self.name}{version}"

    def is_neighbour_of(self, other: VaultKeyId) -> bool:
        """
        Whether both lie in vaults directly below one domain of Azure's, by their names.
        """
        for suffix in _SUFFIXES:
            if all(_lies_below(key.authority, suffix) for key in (self, other)):
                return True
        return False


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """
    What a vault tells of a key.

    Attributes:
        kind: ``RSA``, ``RSA-HSM``, ``EC``, ….
        operations: what the key may be used for, such as ``wrapKey``.
    """

    id: VaultKeyId
    kind: str
    operations: frozenset[str]
    is_enabled: bool


def require_wrapping(key: KeyDescription) -> None:
    """
    Refuse a key that could not wrap, or not unwrap what it wrapped.

    Raises:
        KeyWrapError: its type, its state or its operations; the text says which.
    """
    if key.kind not in _RSA:
        raise KeyWrapError(
            f"The vault's key {key.id.url} is of type {key.kind or 'unknown'}, which does not "
            "wrap here.",
            hint="Make an RSA or RSA-HSM key of 2048 bits or more, and name that one.",
        )
    if not key.is_enabled:
        raise KeyWrapError(
            f"The vault's key {key.id.url} is disabled.",
            hint="Enable it, or rotate it and leave the version out of the address.",
        )
    missing = sorted(_OPERATIONS - key.operations)
    if missing:
        raise KeyWrapError(
            f"The vault's key {key.id.url} does not permit {' and '.join(missing)}.",
            hint="Permit the operations wrapKey and unwrapKey on the key.",
        )


def _lies_below(authority: str, suffix: str) -> bool:
    # Exactly one label: nobody but Azure answers there, on the one port that it has.
    label = authority.removesuffix(suffix)
    return label != authority and re.fullmatch("[0-9a-z-]+", label) is not None
