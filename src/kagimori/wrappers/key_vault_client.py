"""
Calls to Azure Key Vault: get, wrapKey and unwrapKey of a key, and what its refusals mean.

Rules of this module ("Key Vault REST API reference", API version of the SDK):

1. Wrapping is done by the vault, too. The SDK would do it here with the public key, whatever the
   rights, the state and the permitted operations of the key are.
2. A token goes only to https, and never along a redirect. That the vault's challenge names the
   audience of its own domain is checked by the SDK, except on this machine (tests' doubles).
3. Each refusal names the right that is missing, in the words of the portal.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from kagimori import azure_sign_in
from kagimori.azure_sign_in import SIGN_IN_HINT, AzureCallError, Fault, ask
from kagimori.errors import KeyWrapError
from kagimori.per_process import PerProcess
from kagimori.wrappers.key_vault_key import KeyDescription, VaultKeyId

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.rest import HttpRequest, HttpResponse

ROLE_HINT = (
    "Give {who} the role Key Vault Crypto Service Encryption User on the vault or the key (Azure "
    "RBAC), or the key permissions get, wrapKey and unwrapKey (access policies)."
)
_RIGHTS_ACTIONS = {"get": "GET", "wrapKey": "POST", "unwrapKey": "POST"}
HSM_ROLE_HINT = (
    "Give {who} the role Managed HSM Crypto Service Encryption User on the key, by the HSM's own "
    "local RBAC."
)


class RightMissingError(KeyWrapError):
    """
    The identity may not do this with the key.
    """

    code = "wrapper.right"


class NotOpenedError(KeyWrapError):
    """
    The key was asked, and what it was given is not wrapped by it.
    """

    code = "wrapper.not_opened"


class Sender(Protocol):
    """
    What is used of the SDK's clients: all of them sign in and send.
    """

    def send_request(self, request: HttpRequest, *, retry_total: int) -> HttpResponse:
        """
        Send a request with a token, and return whatever the answer is.

        Args:
            retry_total: how often to send it again; 0 for clients that were given, too.
        """
        ...


class VaultClient:
    """
    Calls vaults, each by the credential of this client. Thread-safe.

    Args:
        sender: makes what sends to a vault's https address; kept per vault and process.
        who: the identity, for people.
    """

    def __init__(
        self,
        sender: Callable[[str], Sender],
        who: str = "the identity of this application",
    ) -> None:
        self._sender = sender
        self._who = who
        self._senders: PerProcess[dict[str, Sender]] = PerProcess(dict)

    @classmethod
    def signed_in(
        cls,
        credential: TokenCredential | None = None,
        identity: str | None = None,
        read_seconds: float = azure_sign_in.READ_SECONDS,
    ) -> VaultClient:
        """
        Return a client that signs in by a credential, or by `DefaultAzureCredential`.
        """
        sign_in = credential or azure_sign_in.DefaultSignIn(identity)

        def sender(url: str) -> Sender:
            from azure.keyvault.keys import KeyClient

            client: Sender = KeyClient(
                url,
                sign_in,
                verify_challenge_resource=not _is_loopback(url),
                **azure_sign_in.client_options(read_seconds),
            )
            return client

        named = {"who": f"the managed identity {identity}"} if identity else {}
        return cls(sender, **named)

    def describe(self, key: VaultKeyId) -> KeyDescription:
        """
        Return what the vault tells of a key; without a version, of the newest.

        Raises:
            KeyWrapError: the vault refused or did not answer (then `transient`).
        """
        answer = self._call(key, "get")
        named = _mapping(answer, "key")
        operations = named.get("key_ops")
        try:
            return KeyDescription(
                VaultKeyId.parse(str(named.get("kid", ""))),
                str(named.get("kty", "")),
                frozenset(operations if isinstance(operations, list) else ()),
                _mapping(answer, "attributes").get("enabled") is not False,
            )
        except (TypeError, ValueError):
            raise _not_azure(key) from None

    def wrap(self, key: VaultKeyId, algorithm: str, data_key: bytes) -> bytes:
        """
        Have the vault wrap a data key.

        Raises:
            KeyWrapError: the vault refused or did not answer (then `transient`).
        """
        return self._operate(key, "wrapKey", algorithm, data_key)

    def unwrap(self, key: VaultKeyId, algorithm: str, wrapped: bytes) -> bytes:
        """
        Have the vault unwrap a data key.

        Raises:
            KeyWrapError: the vault refused or did not answer (then `transient`).
        """
        return self._operate(key, "unwrapKey", algorithm, wrapped)

    def _operate(
        self, key: VaultKeyId, right: str, algorithm: str, value: bytes
    ) -> bytes:
        body = {
            "alg": algorithm,
            "value": urlsafe_b64encode(value).rstrip(b"=").decode("ascii"),
        }
        text = self._call(key, right, body).get("value")
        try:
            padded = str(text).replace("-", "+").replace("_", "/")
            return binascii.a2b_base64(padded + "=" * (-len(padded) % 4))
        except ValueError:
            raise _not_azure(key) from None

    def _call(
        self, key: VaultKeyId, right: str, body: Mapping[str, str] | None = None
    ) -> Mapping[str, object]:
        from azure.core.rest import HttpRequest

        url = key.url if right == "get" else f"{key.url}/{right.lower()}"
        sender = self._sender_of(key)

        def send() -> HttpResponse:
            method = _RIGHTS_ACTIONS[right]
            request = HttpRequest(method, url, json=body)
            return sender.send_request(request, retry_total=0)

        try:
            response = ask(send, tries=2)
        except AzureCallError as error:
            raise self._unanswered(key, right, error.fault) from None
        except ValueError as error:
            # The SDK's check of the challenge; nothing was sent with a token.
            raise KeyWrapError(
                f"What answers at {key.authority} is no Azure Key Vault of that domain.",
                hint="Check the vault's address.",
                detail=type(error).__name__,
            ) from None
        answer = _json(response)
        if response.status_code != 200:
            raise self._refused(key, right, response, answer)
        return answer

    def _sender_of(self, key: VaultKeyId) -> Sender:
        senders = self._senders.get()
        sender = senders.get(key.authority)
        if sender is None:
            sender = senders[key.authority] = self._sender(f"https://{key.authority}")
        return sender

    # --- refusals --------------------------------------------------------------------------

    def _unanswered(self, key: VaultKeyId, right: str, fault: Fault) -> KeyWrapError:
        if fault.is_sign_in:
            return KeyWrapError(
                f"Signing in to Azure for the vault {key.authority} failed.",
                hint=SIGN_IN_HINT,
                detail=fault.code,
                transient=fault.is_transient,
                retry_after=fault.retry_after,
            )
        if fault.status is not None:
            # Not even the SDK could read the answer.
            is_refusal = fault.status >= 400
            return self._of_status(key, fault, right) if is_refusal else _not_azure(key)
        return KeyWrapError(
            f"The vault {key.authority} does not answer.",
            hint="Check the vault's name, and that it can be reached from here: its firewall, a "
            "private endpoint.",
            detail=fault.code,
            transient=True,
        )

    def _refused(
        self,
        key: VaultKeyId,
        right: str,
        response: HttpResponse,
        answer: Mapping[str, object],
    ) -> KeyWrapError:
        error = _mapping(answer, "error")
        code = str(_mapping(error, "innererror").get("code") or error.get("code") or "")
        said = str(error.get("message") or "").lower()
        seconds = azure_sign_in.retry_after(response.headers)
        fault = Fault(response.status_code, _word(code), retry_after=seconds)
        if fault.status == 403:
            return self._forbidden(key, right, fault, said)
        if fault.status == 404 and code == "KeyNotFound":
            return KeyWrapError(
                f"There is no key {key.url} in the vault.",
                hint="Check the name; a key that was deleted can be recovered (Manage deleted "
                "keys).",
                detail=fault.code,
            )
        if fault.status == 400 and right == "unwrapKey":
            return NotOpenedError(
                f"The vault's key {key.url} does not open the envelope: another key wrapped it, "
                "or it was altered.",
                hint="Restore the ring from a backup.",
                detail=fault.code,
            )
        return self._of_status(key, fault, right)

    def _of_status(self, key: VaultKeyId, fault: Fault, right: str) -> KeyWrapError:
        status = fault.status or 0
        hint = ""
        if status == 429:
            text = f"The vault {key.authority} is asked too often at the moment."
        elif status >= 500:
            text = f"The vault {key.authority} fails at the moment ({status})."
        elif status == 401:
            text = f"The vault {key.authority} does not take our token."
            hint = f"Check that {self._who} is of the vault's own tenant."
        else:
            text = f"The vault {key.authority} refused {right} ({status} {fault.code})."
            hint = "Check the address of the key."
        return KeyWrapError(
            text,
            hint=hint,
            detail=f"{status} {fault.code}",
            transient=fault.is_transient,
            retry_after=fault.retry_after,
        )

    def _forbidden(
        self, key: VaultKeyId, right: str, fault: Fault, said: str
    ) -> KeyWrapError:
        detail = f"403 {fault.code}"
        if fault.code == "KeyDisabled" or "disabled key" in said:
            return KeyWrapError(
                f"The vault's key {key.url} is disabled.",
                hint="Enable this version again: keys of the ring that it wrapped need it until "
                "they are wrapped anew (kagimori ring rewrap).",
                detail=detail,
            )
        if fault.code == "KeyOperationForbidden" or "not permitted on this key" in said:
            return KeyWrapError(
                f"The vault's key {key.url} does not permit {right}.",
                hint="Permit the operations wrapKey and unwrapKey on this version of the key.",
                detail=detail,
            )
        if "expired" in said or "not yet valid" in said:
            return KeyWrapError(
                f"The vault's key {key.url} is outside of its dates.",
                hint="Rotate the key, or set its activation and expiration dates right.",
                detail=detail,
            )
        if fault.code in {"ForbiddenByFirewall", "ForbiddenByConnection"}:
            return KeyWrapError(
                f"The vault {key.authority} does not let this network in.",
                hint="Allow it under Networking, or use the vault's private endpoint.",
                detail=detail,
            )
        hint = (HSM_ROLE_HINT if key.is_in_hsm else ROLE_HINT).format(who=self._who)
        if fault.code == "ForbiddenByRbac":
            hint += " A new assignment takes up to ten minutes."
        return RightMissingError(
            f"The right {right} on the vault's key {key.url} is missing.",
            hint=hint,
            detail=detail,
        )


def _json(response: HttpResponse) -> Mapping[str, object]:
    try:
        answer: object = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _mapping(answer: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = answer.get(name)
    return found if isinstance(found, dict) else {}


def _word(code: str) -> str:
    # What stands in our texts is a word of theirs, never a whole message.
    return code if re.fullmatch("[A-Za-z0-9]{1,64}", code) else "no code"


def _not_azure(key: VaultKeyId) -> KeyWrapError:
    return KeyWrapError(
        f"What answers at {key.authority} is no Azure Key Vault.",
        hint="Check the vault's address.",
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
