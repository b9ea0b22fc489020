"""
A double of Azure Key Vault: its REST protocol over TLS, with real RSA.

As documented in "Key Vault REST API reference" (keys: get, wrapKey, unwrapKey) and
"Authentication, requests and responses": a request without a token is answered by a challenge;
each key has versions; an operation needs a right of the caller, an enabled version, and to be
among the key's own operations; refusals have Azure's codes. Tokens are looked into (audience,
issuer, expiry, principal), their signature is not.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.doubles.managed_identity import ISSUER, TENANT, token
from tests.doubles.tls_server import Request, Response, TlsServer
from tests.servers.azurite import make_certificate

RESOURCE = "https://vault.azure.net"
USER = frozenset({"get", "wrapKey", "unwrapKey"})
"""What the role Key Vault Crypto Service Encryption User allows."""

_ACTIONS = {"get": "read", "wrapKey": "wrap/action", "unwrapKey": "unwrap/action"}
_WORDS = {"get": "get", "wrapKey": "wrap key", "unwrapKey": "unwrap key"}
_DIGESTS = {"RSA-OAEP": hashes.SHA1, "RSA-OAEP-256": hashes.SHA256}
_PATH = re.compile(
    r"/keys/([0-9A-Za-z-]{1,127})(?:/([0-9a-f]{32}))?/*(wrapkey|unwrapkey)?",
    re.IGNORECASE,
)


class RefusedError(Exception):
    """
    An answer other than 200.
    """

    def __init__(
        self, status: int, code: str, message: str, inner: str | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        error: dict[str, Any] = {"code": code, "message": message}
        if inner:
            error["innererror"] = {"code": inner}
        self.body = {"error": error}
        self.headers: dict[str, str] = {}


@dataclass
class Key:
    """
    One version of a key.
    """

    name: str
    kty: str
    operations: tuple[str, ...]
    private: Any
    version: str
    enabled: bool = True


class Credential:
    """
    Signs in as a principal, without asking anybody.
    """

    def __init__(self, principal: str, *, issuer: str = ISSUER) -> None:
        self.principal = principal
        self.issuer = issuer
        self.asked: list[tuple[str, ...]] = []

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        self.asked.append(scopes)
        resource = scopes[0].removesuffix("/.default")
        text = token(resource, self.principal, issuer=self.issuer)
        return AccessToken(text, int(time.time()) + 3600)


class KeyVault:
    """
    A vault.

    Attributes:
        rights: what each principal may do.
        is_rbac: whether it refuses as under Azure RBAC, else as under access policies.
        requests: method and path of each request that came with a token.
    """

    def __init__(self, folder: Path, first_key: int = 0) -> None:
        self.ca = make_certificate(folder)
        self.rights: dict[str, set[str]] = {}
        self.is_rbac = True
        self.requests: list[tuple[str, str]] = []
        self._keys: dict[str, list[Key]] = {}
        self._throttled: list[dict[str, str]] = []
        self._gate = threading.Event()
        self._gate.set()
        self._numbers = itertools.count(first_key)
        self._server = TlsServer(folder, self.respond)

    @classmethod
    @contextmanager
    def running(cls, folder: Path, first_key: int = 0) -> Iterator[KeyVault]:
        """
        Run one; two that start at different numbers have different keys.
        """
        vault = cls(folder, first_key)
        vault._server.start()
        try:
            yield vault
        finally:
            vault._server.stop()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.port}"

    # --- what its owner does ---------------------------------------------------------------

    def create(
        self,
        name: str = "ring",
        *,
        kty: str = "RSA",
        operations: tuple[str, ...] = ("wrapKey", "unwrapKey"),
        private: Any = None,
        version: str | None = None,
    ) -> str:
        """
        Make or import a key, or a new version of it (rotation); returns that version's id.
        """
        if private is None and kty.startswith("EC"):
            private = ec.generate_private_key(ec.SECP256R1())
        elif private is None:
            private = _rsa(next(self._numbers))
        key = Key(name, kty, operations, private, version or uuid.uuid4().hex)
        self._keys.setdefault(name, []).append(key)
        return self.id_of(key)

    def id_of(self, key: Key) -> str:
        return f"{self.url}/keys/{key.name}/{key.version}"

    def enable(self, key_id: str, *, enabled: bool) -> None:
        """
        Enable or disable a version.
        """
        self._of_id(key_id).enabled = enabled

    def permit(self, key_id: str, *operations: str) -> None:
        """
        Change what a version may be used for.
        """
        self._of_id(key_id).operations = operations

    def _of_id(self, key_id: str) -> Key:
        versions = (key for keys in self._keys.values() for key in keys)
        return next(key for key in versions if self.id_of(key) == key_id)

    def grant(self, *rights: str) -> Credential:
        """
        Make a principal with rights, and return what signs in as it.
        """
        credential = Credential(str(uuid.uuid4()))
        self.rights[credential.principal] = set(rights)
        return credential

    def throttle(self, times: int, **headers: str) -> None:
        """
        Answer the next requests by 429, with headers such as ``Retry_After="7"``.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._throttled = [named] * times

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """
        Take requests and do not answer them.
        """
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def stopped(self) -> AbstractContextManager[None]:
        """
        Stop it for a while, with all connections.
        """
        return self._server.stopped()

    # --- the service -----------------------------------------------------------------------

    def respond(self, request: Request) -> Response:
        try:
            answer, headers = self.answer(
                request.method, request.path, request.authorization, request.body
            )
            status = 200
        except RefusedError as refused:
            status, answer, headers = refused.status, refused.body, refused.headers
        headers["Content-Type"] = "application/json; charset=utf-8"
        return Response(status, json.dumps(answer).encode(), headers)

    def answer(
        self, method: str, path: str, authorization: str | None, body: bytes
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """
        Return the body and the headers of an answer.

        Raises:
            RefusedError: it is another one than 200.
        """
        self._gate.wait(30)
        if self._throttled:
            refused = RefusedError(
                429,
                "Throttled",
                "Request was not processed because too many requests were received. "
                "Reason: VaultRequestTypeLimitReached",
            )
            refused.headers = self._throttled.pop()
            raise refused
        principal = self._authenticated(authorization)
        parts = urlsplit(path)
        self.requests.append((method, parts.path))
        if not re.fullmatch(
            r"\d\.\d|20\d\d-\d\d-\d\d", _one(parts.query, "api-version")
        ):
            raise RefusedError(400, "BadParameter", "api-version must be specified")
        match = _PATH.fullmatch(parts.path)
        if match is None:
            raise RefusedError(404, "NotFound", "The resource was not found.")
        name, version, verb = match[1], match[2], (match[3] or "get").lower()
        right = {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey"}.get(verb, "get")
        if (method == "GET") != (right == "get"):
            raise RefusedError(405, "MethodNotAllowed", "The method is not allowed.")
        self._authorize(principal, right, name)
        key = self._find(name, version)
        if right == "get":
            return self._described(key), {}
        if not key.enabled:
            text = f"Operation {right} is not allowed on a disabled key."
            raise RefusedError(403, "Forbidden", text, "KeyDisabled")
        if right not in key.operations:
            text = f"Operation {right} is not permitted on this key."
            raise RefusedError(403, "Forbidden", text, "KeyOperationForbidden")
        value = _run(key, right, json.loads(body or b"{}"))
        return {"kid": self.id_of(key), "value": _b64(value)}, {}

    def _authenticated(self, authorization: str | None) -> str:
        refused = RefusedError(
            401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token."
        )
        refused.headers = {
            "WWW-Authenticate": "Bearer authorization="
            f'"https://login.microsoftonline.com/{TENANT}", resource="{RESOURCE}"'
        }
        if authorization is None or not authorization.startswith("Bearer "):
            raise refused
        part = authorization.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        if claims["aud"] != RESOURCE or claims["exp"] < time.time():
            refused.body["error"]["message"] = "AKV10022: Invalid audience or expired."
            raise refused
        if claims["iss"] != ISSUER:
            refused.body["error"]["message"] = "AKV10032: Invalid issuer."
            raise refused
        principal: str = claims["oid"]
        return principal

    def _authorize(self, principal: str, right: str, name: str) -> None:
        if right in self.rights.get(principal, ()):
            return
        caller = f"appid={principal};oid={principal};iss={ISSUER}"
        if self.is_rbac:
            raise RefusedError(
                403,
                "Forbidden",
                "Caller is not authorized to perform action on resource.\r\nIf role "
                "assignments, deny assignments or role definitions were changed recently, "
                f"please observe propagation time.\r\nCaller: {caller}\r\nAction: "
                f"'Microsoft.KeyVault/vaults/keys/{_ACTIONS[right]}'\r\nResource: "
                f"'/subscriptions/x/resourcegroups/x/providers/microsoft.keyvault/vaults/"
                f"double/keys/{name}'\r\nAssignment: (not found)\r\nVault: double;"
                "location=westeurope\r\n",
                "ForbiddenByRbac",
            )
        raise RefusedError(
            403,
            "Forbidden",
            f"The user, group or application '{caller}' does not have keys {_WORDS[right]} "
            "permission on key vault 'double;location=westeurope'.",
            "ForbiddenByPolicy",
        )

    def _find(self, name: str, version: str | None) -> Key:
        for key in reversed(self._keys.get(name, [])):
            if version in {None, key.version}:
                return key
        raise RefusedError(
            404,
            "KeyNotFound",
            f"A key with (name/id) {name}/{version or ''} was not found in this key vault. If "
            "you recently deleted this key you may be able to recover it using the correct "
            "recovery command.",
        )

    def _described(self, key: Key) -> dict[str, Any]:
        described: dict[str, Any] = {
            "kid": self.id_of(key),
            "kty": key.kty,
            "key_ops": list(key.operations),
        }
        numbers = key.private.public_key().public_numbers()
        if key.kty.startswith("EC"):
            described |= {"crv": "P-256", "x": _int(numbers.x), "y": _int(numbers.y)}
        else:
            described |= {"n": _int(numbers.n), "e": _int(numbers.e)}
        return {
            "key": described,
            "attributes": {
                "enabled": key.enabled,
                "created": 1_760_000_000,
                "updated": 1_760_000_000,
                "recoveryLevel": "Recoverable+Purgeable",
                "exportable": False,
            },
            "tags": {},
        }


@cache
def _rsa(number: int) -> rsa.RSAPrivateKey:
    # Made once for all vaults of a process: that takes longer than most tests.
    return rsa.generate_private_key(65537, 2048)


@cache
def _oaep(algorithm: str) -> padding.OAEP:
    digest = _DIGESTS[algorithm]()
    return padding.OAEP(padding.MGF1(digest), digest, None)


def _run(key: Key, right: str, body: dict[str, str]) -> bytes:
    algorithm, text = body.get("alg", ""), body.get("value", "")
    if algorithm not in _DIGESTS or not re.fullmatch("[A-Za-z0-9_-]+", text):
        raise RefusedError(400, "BadParameter", "Property has invalid value")
    value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    try:
        if right == "wrapKey":
            sealed: bytes = key.private.public_key().encrypt(value, _oaep(algorithm))
            return sealed
        opened: bytes = key.private.decrypt(value, _oaep(algorithm))
    except ValueError:
        raise RefusedError(400, "BadParameter", "The parameter is incorrect.") from None
    return opened


def _one(query: str, name: str) -> str:
    return parse_qs(query).get(name, [""])[0]


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _int(number: int) -> str:
    return _b64(number.to_bytes((number.bit_length() + 7) // 8, "big"))
