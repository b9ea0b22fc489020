"""
Wrapping by an RSA key of Azure Key Vault or Managed HSM, as ASP.NET Core Data Protection does it.

    azurekeyvault:https://VAULT.vault.azure.net/keys/NAME[/VERSION]
        algorithm=RSA-OAEP-256    for rings that no .NET reads; left out: RSA-OAEP
        identity=CLIENT_ID        of a user-assigned managed identity

Rules of this module (`aspnet-data-protection.md` 3.1):

1. Without a version the newest one wraps, and its id is what an envelope names. Unwrapping goes
   to that id, whatever is configured: rotating the vault's key never touches old entries.
2. An envelope is a claim. Our token goes to the configured vault, and to others only below the
   domain of Azure's that the configured one lies in, where Microsoft alone answers.
3. A key is not used for wrapping if it could not unwrap.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import TYPE_CHECKING, cast

from kagimori import azure_sign_in
from kagimori.addresses import Address
from kagimori.crypto.aead import BLOCK_BYTES
from kagimori.errors import ConfigError, KeyWrapError
from kagimori.events import EventSink
from kagimori.keys.findings import Finding
from kagimori.keys.wrapping import WrappedSecret
from kagimori.wrappers import key_vault_envelope as envelopes
from kagimori.wrappers.key_vault_client import (
    NotOpenedError,
    RightMissingError,
    Sender,
    VaultClient,
)
from kagimori.wrappers.key_vault_key import VaultKeyId, require_wrapping

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.keyvault.keys.crypto import CryptographyClient

_DUD = bytes(256)


def open_wrapper(address: Address, events: EventSink) -> AzureKeyVaultWrapper:
    """
    Return the wrapper of an ``azurekeyvault:`` address; nothing is asked of Azure yet.

    Raises:
        ConfigError: the address is malformed.
    """
    return wrapper_of(address, None)


def wrapper_of(
    address: Address, credential: TokenCredential | None
) -> AzureKeyVaultWrapper:
    """
    Return the wrapper of an address, signed in by a given credential.

    Raises:
        ConfigError: the address is malformed.
    """
    address.allow("algorithm", "identity")
    return AzureKeyVaultWrapper(
        address.path,
        algorithm=address.option("algorithm") or envelopes.RSA_OAEP,
        identity=address.option("identity"),
        credential=credential,
    )


class AzureKeyVaultWrapper:
    """
    Wraps by a key of Azure Key Vault. Thread-safe; each forked process has its own connections.

    Args:
        key: the key's id, with or without a version.
        algorithm: ``RSA-OAEP``, which .NET reads, or ``RSA-OAEP-256``.
        identity: the client id of a user-assigned managed identity.
        credential: what signs in, instead of `DefaultAzureCredential`.
        read_seconds: how long to wait for an answer.

    Raises:
        ConfigError: id or algorithm are malformed, or the package is not installed.
    """

    def __init__(
        self,
        key: str,
        *,
        algorithm: str = envelopes.RSA_OAEP,
        identity: str | None = None,
        credential: TokenCredential | None = None,
        read_seconds: float = azure_sign_in.READ_SECONDS,
    ) -> None:
        try:
            import azure.keyvault.keys  # noqa: F401 - an optional package
        except ImportError:
            raise azure_sign_in.missing_package() from None
        if algorithm not in envelopes.ALGORITHMS:
            raise ConfigError(
                "A vault's key wraps by another algorithm than that.",
                hint=f"There are {' and '.join(envelopes.ALGORITHMS)}.",
            )
        try:
            self._key = VaultKeyId.parse(key)
        except ValueError:
            raise ConfigError(
                "This is no id of a key in Azure Key Vault.",
                hint="Write azurekeyvault:https://VAULT.vault.azure.net/keys/NAME.",
            ) from None
        self._algorithm = algorithm
        self._client = VaultClient.signed_in(credential, identity, read_seconds)

    @classmethod
    def from_cryptography_client(
        cls, client: CryptographyClient, *, algorithm: str = envelopes.RSA_OAEP
    ) -> AzureKeyVaultWrapper:
        """
        Return the wrapper over the key of a client, which sends all calls, to its vault alone.

        It keeps its own time limits, and makes no retries. It is used as it is after a fork, too:
        give each process one of its own.

        Raises:
            ConfigError: the client is one of a local key, or the algorithm is not known.
        """
        wrapper = cls(client.key_id or "", algorithm=algorithm)
        ours = f"https://{wrapper._key.authority}"

        def sender(url: str) -> Sender:
            if url != ours:
                raise KeyWrapError(
                    f"The client that was given is one of another vault than {url}.",
                    hint="Give the ring a credential instead of a client.",
                )
            return cast("Sender", client)

        wrapper._client = VaultClient(sender)
        return wrapper

    @property
    def name(self) -> str:
        """
        The vault's key as it was configured.
        """
        return f"Azure Key Vault {self._key.url}"

    @property
    def is_plaintext(self) -> bool:
        """
        False: secrets are wrapped.
        """
        return False

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        """
        Encrypt an element under a data key that the vault wraps.

        Raises:
            KeyWrapError: the vault refused, did not answer (then `transient`), or its key is
                of another kind.
        """
        key = self._wrapping_key()
        data_key, iv = (
            token_bytes(envelopes.DATA_KEY_BYTES),
            token_bytes(BLOCK_BYTES),
        )
        wrapped_key = self._client.wrap(key, self._algorithm, data_key)
        value = envelopes.encrypt(plaintext, data_key, iv)
        return envelopes.write(
            envelopes.KeyVaultEnvelope(key.url, wrapped_key, iv, value, self._algorithm)
        )

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        """
        Whether the envelope is one of Azure Key Vault.
        """
        return envelopes.matches(wrapped)

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        """
        Have the vault open an envelope by the key version that it names.

        Raises:
            KeyWrapError: another vault, an altered envelope, the vault refused, or it did not
                answer (then `transient`).
        """
        envelope = envelopes.read(wrapped, context)
        key = self._allowed(envelope.kid, context)
        data_key = self._client.unwrap(key, envelope.algorithm, envelope.wrapped_key)
        return envelopes.decrypt(envelope, data_key, context)

    def key_of(self, wrapped: WrappedSecret) -> str | None:
        """
        Return the id and version of the vault's key that wrapped an envelope.
        """
        if not self.can_unwrap(wrapped):
            return None
        try:
            return VaultKeyId.parse(envelopes.read(wrapped, "").kid).url
        except (KeyWrapError, ValueError):
            return None

    def newest(self) -> str:
        """
        Return the id and version of the vault's key that would wrap now.

        Raises:
            KeyWrapError: as `wrap` raises.
        """
        return self._wrapping_key().url

    def examine(self) -> tuple[Finding, ...]:
        """
        Try the three rights one by one, on a data key of no use.
        """
        key = self._key
        try:
            described = self._client.describe(key)
            require_wrapping(described)
            key = described.id
            text = (
                f"The key is of type {described.kind} and enabled; its id is {key.url}."
            )
            read = Finding("read key", ok=True, text=text)
        except KeyWrapError as error:
            read = Finding("read key", ok=False, text=error.text, remedy=error.hint)
        data_key = token_bytes(envelopes.DATA_KEY_BYTES)
        wrapped = _DUD
        try:
            wrapped = self._client.wrap(key, self._algorithm, data_key)
            wrap = Finding("wrap", ok=True, text="A data key was wrapped by the vault.")
        except KeyWrapError as error:
            wrap = Finding("wrap", ok=False, text=error.text, remedy=error.hint)
        try:
            opened = self._client.unwrap(key, self._algorithm, wrapped)
            is_same = opened == data_key
            text = (
                "It was unwrapped again."
                if is_same
                else "It was unwrapped to something else."
            )
            unwrap = Finding("unwrap", ok=is_same, text=text)
        except NotOpenedError as error:
            # Nothing could be wrapped, so the vault was given what no key wrapped: that it looked
            # at it shows the right.
            is_right = wrapped is _DUD
            text = "The right is there." if is_right else error.text
            unwrap = Finding("unwrap", ok=is_right, text=text)
        except KeyWrapError as error:
            unwrap = Finding("unwrap", ok=False, text=error.text, remedy=error.hint)
        return read, wrap, unwrap

    def _wrapping_key(self) -> VaultKeyId:
        """
        Return the versioned id of the key that wraps now.
        """
        try:
            described = self._client.describe(self._key)
        except RightMissingError:
            # With a version there is nothing that would have to be read.
            if self._key.version is None:
                raise
            return self._key
        require_wrapping(described)
        found = described.id
        same = (found.authority, found.name.lower()) == (
            self._key.authority,
            self._key.name.lower(),
        )
        if not same or found.version is None:
            raise KeyWrapError(
                f"The vault calls the key {found.url}, so envelopes would name that one.",
                hint="Name the key by the id that the portal shows.",
            )
        return found

    def _allowed(self, kid: str, context: str) -> VaultKeyId:
        try:
            key = VaultKeyId.parse(kid)
        except ValueError:
            key = None
        if key is None or key.version is None:
            raise KeyWrapError(
                f"The envelope of the key {context} names no version of a key in a vault.",
                hint="Restore the ring from a backup.",
            )
        if key.authority == self._key.authority or key.is_neighbour_of(self._key):
            return key
        raise KeyWrapError(
            f"The key {context} is wrapped in the vault {key.authority}, which is none of "
            f"{self._key.authority} or its cloud.",
            hint="Name a wrapper of that vault for reading too, or restore the ring from a backup "
            "if it should not be there.",
        )

    def __repr__(self) -> str:
        return f"<AzureKeyVaultWrapper {self._key.url}>"

    def __reduce__(self) -> str:
        raise TypeError("a wrapper with its sign-in is not pickled")
