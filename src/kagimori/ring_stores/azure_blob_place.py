"""
Where a blob lies, and who reads it: addresses of Azure Storage, taken apart.

Rules of this module:

1. Over http nothing is sent but to this machine itself (an emulator): tokens, signatures and
   keys stand in each request.
2. Signatures and keys are in no name and no repr.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from kagimori import azure_sign_in
from kagimori.addresses import Address, secret_names
from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.ring_stores.one_document import MOST_BYTES

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, TokenCredential
    from azure.storage.blob import BlobClient, ContainerClient

BLOB = "keys.xml"
"""The blob that ASP.NET Core applications commonly name, used where none is named."""

_OURS = ("identity", *secret_names("sas"), *secret_names("account-key"))
# The parameters of a shared access signature, of service, account and user delegation.
_SAS = frozenset(
    {
        "sv",
        "ss",
        "srt",
        "sr",
        "st",
        "se",
        "sp",
        "si",
        "sip",
        "spr",
        "sig",
        "sdd",
        "skoid",
        "sktid",
        "skt",
        "ske",
        "sks",
        "skv",
        "saoid",
        "suoid",
        "scid",
        "ses",
        "sduoid",
        "skdutid",
        "rscc",
        "rscd",
        "rsce",
        "rscl",
        "rsct",
    }
)
_CONTAINER = re.compile(r"\$root|[a-z0-9](?:-?[a-z0-9]){2,62}")
_MOST_NAME = 63
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_HINT = (
    "Write azblob://ACCOUNT/CONTAINER/BLOB, or "
    "https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB."
)


class Clients(NamedTuple):
    """
    The clients of one blob and its container.
    """

    blob: BlobClient
    container: ContainerClient


@dataclass(frozen=True, slots=True)
class BlobPlace:
    """
    A blob and how to sign in for it.

    Attributes:
        account_url: the blob endpoint of the account, without a path's end.
        identity: the client id of a user-assigned managed identity.
        sas: a shared access signature, instead of signing in.
        key: the account's key, likewise.
        credential: what signs in, instead of `DefaultAzureCredential`; or a client's own.
    """

    account_url: str
    container: str
    blob: str = BLOB
    identity: str | None = None
    sas: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    credential: object | None = field(default=None, repr=False)

    @classmethod
    def of(cls, address: Address) -> BlobPlace:
        """
        Read an ``azblob:`` or ``https:`` address.

        Raises:
            ConfigError: it is malformed.
            InsecureConfigError: it would send secrets over a network in the clear.
        """
        if address.user is not None or address.password is not None:
            raise ConfigError(
                "A blob's address holds no user and password.", hint=_HINT
            )
        segments = [part for part in address.path.split("/") if part]
        if address.scheme == "azblob":
            address.allow("endpoint", *_OURS)
            account_url = _endpoint(address)
            sas = None
        else:
            address.allow(*_SAS, *_OURS)
            account_url = f"https://{address.authority}"
            if _is_path_style(address.host):
                account_url += f"/{segments.pop(0)}" if segments else ""
            sas = _signature(address.options)
        name = segments[0] if segments else ""
        if not _CONTAINER.fullmatch(name) or len(name) > _MOST_NAME:
            raise ConfigError("A blob's address names no container.", hint=_HINT)
        given = address.secret("sas")
        key = address.secret("account-key")
        identity = address.option("identity")
        if sum(way is not None for way in (sas, given, key, identity)) > 1:
            raise ConfigError("Blob storage is signed in to in one way only.")
        place = cls(
            account_url.rstrip("/"),
            name,
            "/".join(segments[1:]) or BLOB,
            identity,
            given.decode("ascii", "replace").strip().lstrip("?") if given else sas,
            key.decode("ascii", "replace").strip() if key else None,
        )
        place.check()
        return place

    @classmethod
    def of_client(cls, client: BlobClient) -> BlobPlace:
        """
        Return the place of a client, signed in as it is.
        """
        host = f"{client.scheme}://{client.primary_hostname}".rstrip("/")
        return cls(
            host,
            client.container_name,
            client.blob_name,
            sas=urlsplit(client.url).query or None,
            credential=client.credential,
        )

    def signed_in_by(self, credential: TokenCredential) -> BlobPlace:
        """
        Return the place, read by a given credential.
        """
        return replace(self, credential=credential)

    def check(self) -> None:
        """
        Refuse a place whose requests would be readable on the way.

        Raises:
            ConfigError: an endpoint over http is signed in to by a token, which Azure's clients
                refuse too.
            InsecureConfigError: signatures or keys would cross a network in the clear.
        """
        parts = urlsplit(self.account_url)
        if parts.scheme == "https":
            return
        if not _is_loopback(parts.hostname or ""):
            raise InsecureConfigError(
                "Blob storage is spoken to over https.",
                hint="Only an emulator on this machine may be named by http.",
            )
        if self.sas is None and self.key is None:
            raise ConfigError(
                "Azure signs in over https only.",
                hint="Name the emulator's key by account-key-env= or account-key-file=, or let it "
                "speak https.",
            )

    @property
    def url(self) -> str:
        """
        The blob's address, for people.
        """
        return f"{self.account_url}/{self.container}/{quote(self.blob, safe='~/')}"

    def allowing(self, role: str) -> str:
        """
        Say what gives whoever signs in here the rights of a role on the container.
        """
        if self.key is not None:
            return "Check the account's key, which allows everything."
        if self.sas is not None:
            letters = "r" if role.endswith("Reader") else "rcw"
            return (
                f"Make a shared access signature with the permissions {letters}, or sign in by an "
                f"identity that has the role {role} on the container {self.container}."
            )
        named = (
            f"the managed identity {self.identity}" if self.identity else "the identity"
        )
        return (
            f"Give {named} of this application the role {role} on the container "
            f"{self.container}; a new assignment takes up to ten minutes."
        )

    @property
    def credentials_hint(self) -> str:
        """
        What to do where the service does not take what it is shown.
        """
        if self.sas is not None:
            return "Make a new shared access signature: this one is expired or not of here."
        if self.key is not None:
            return "Check the account's key: it may have been regenerated."
        return "Check that the identity is of the tenant of the storage account."

    def clients(self, read_seconds: float) -> Clients:
        """
        Make the clients of the blob; nothing is asked of Azure yet.

        Raises:
            ConfigError: the package is not installed.
        """
        return self._clients(self._credential(), self.sas, read_seconds)

    def anonymous(self) -> Clients:
        """
        Make clients that sign in by nothing.
        """
        return self._clients(None, None, azure_sign_in.READ_SECONDS)

    def _credential(self) -> object | None:
        if self.credential is not None or self.sas is not None:
            return self.credential
        if self.key is not None:
            return _named_key(self.account_url, self.key)
        return azure_sign_in.DefaultSignIn(self.identity)

    def _clients(
        self, credential: object | None, sas: str | None, read_seconds: float
    ) -> Clients:
        from azure.storage.blob import (
            BlobClient,
            ContainerClient,
        )

        url = self.account_url + (f"?{sas}" if sas else "")
        options = azure_sign_in.client_options(read_seconds, url=url)
        # One request for the whole of it, and never more memory than a ring may take.
        most = MOST_BYTES + 1
        return Clients(
            BlobClient(
                url,
                self.container,
                self.blob,
                credential=credential,  # type: ignore[arg-type] # of one of the kinds it takes
                max_single_get_size=most,
                max_single_put_size=most,
                **options,
            ),
            ContainerClient(
                url,
                self.container,
                credential=credential,  # type: ignore[arg-type] # likewise
                **options,
            ),
        )


def _endpoint(address: Address) -> str:
    account = address.authority
    if not _ACCOUNT.fullmatch(account):
        raise ConfigError(
            "A storage account's name is 3 to 24 lower-case letters and digits.",
            hint=_HINT,
        )
    endpoint = address.option("endpoint")
    if endpoint is None:
        return f"https://{account}.blob.core.windows.net"
    parts = urlsplit(endpoint)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.query:
        raise ConfigError("The endpoint of an azblob: address is an https address.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ConfigError("The endpoint of an azblob: address is host and path alone.")
    return endpoint


def _signature(options: Mapping[str, tuple[str, ...]]) -> str | None:
    given = {name: values for name, values in options.items() if name in _SAS}
    if not given:
        return None
    if "sig" not in given or any(len(values) != 1 for values in given.values()):
        raise ConfigError("The shared access signature of the address is not whole.")
    # Decoded in the address: a plus in it is a plus again here.
    return "&".join(
        f"{name}={quote(value, safe='')}" for name, (value,) in given.items()
    )


def _is_path_style(host: str) -> bool:
    """
    Whether the account is the first segment of the path, as emulators have it.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _named_key(account_url: str, key: str) -> AzureNamedKeyCredential:
    from azure.core.credentials import (
        AzureNamedKeyCredential,
    )

    parts = urlsplit(account_url)
    host = parts.hostname or ""
    path = parts.path.strip("/")
    account = (
        path.split("/")[0] if _is_path_style(host) and path else host.split(".")[0]
    )
    return AzureNamedKeyCredential(account, key)
