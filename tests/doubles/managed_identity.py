"""
A double of the endpoint by which Azure App Service hands out tokens of managed identities.

As documented under "REST endpoint reference" of App Service's managed identities: GET with the
header ``X-IDENTITY-HEADER``, ``api-version`` and ``resource``, and ``client_id`` for a
user-assigned identity. Its tokens have the claims of Entra's; nobody checks their signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TENANT = "3f2b1c5e-8d47-4a0e-9b67-5a1d2e3f4c60"
ISSUER = f"https://sts.windows.net/{TENANT}/"
_VERSION = "2019-08-01"


@dataclass
class ManagedIdentity:
    """
    A running endpoint.

    Attributes:
        endpoint: its address, with the secret the content of App Service's two variables.
        system: the principal of the system-assigned identity; ``None`` for none.
        assigned: the principals of user-assigned identities, by client id.
        asked: resource and client id of each token that was handed out.
        failing: whether it answers 500.
    """

    endpoint: str = ""
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    system: str | None = field(default_factory=lambda: str(uuid.uuid4()))
    assigned: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    failing: bool = False

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[ManagedIdentity]:
        identity = cls()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(identity))
        thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True
        )
        thread.start()
        identity.endpoint = f"http://127.0.0.1:{server.server_port}/msi/token"
        try:
            yield identity
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """
        The variables that App Service sets.
        """
        return {"IDENTITY_ENDPOINT": self.endpoint, "IDENTITY_HEADER": self.secret}

    def assign(self) -> tuple[str, str]:
        """
        Make a user-assigned identity: its client id and its principal.
        """
        client_id, principal = str(uuid.uuid4()), str(uuid.uuid4())
        self.assigned[client_id] = principal
        return client_id, principal

    def answer(
        self, query: dict[str, list[str]], header: str | None
    ) -> tuple[int, dict]:
        """
        Return status and body for a request.
        """
        if self.failing:
            return 500, {"statusCode": 500, "message": "An unexpected error occurred."}
        if header is None or not hmac.compare_digest(header, self.secret):
            return 401, {"statusCode": 401, "message": "Unauthorized"}
        if (
            query.get("api-version") != [_VERSION]
            or len(query.get("resource", ())) != 1
        ):
            return 400, {"statusCode": 400, "message": "Bad request."}
        (client_id,) = query.get("client_id", [None])
        principal = self.assigned.get(client_id) if client_id else self.system
        if principal is None:
            return 400, {
                "statusCode": 400,
                "message": "No managed identity found for specified "
                "ClientId/ResourceId/PrincipalId.",
            }
        (resource,) = query["resource"]
        self.asked.append((resource, client_id))
        expires = int(time.time()) + 3600
        return 200, {
            "access_token": token(resource, principal, expires=expires),
            "expires_on": str(expires),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": client_id or principal,
        }


def token(
    resource: str, principal: str, *, expires: int | None = None, issuer: str = ISSUER
) -> str:
    """
    Return an access token for a resource, as Entra makes one for a managed identity.
    """
    now = int(time.time())
    claims = {
        "aud": resource,
        "iss": issuer,
        "iat": now - 5,
        "nbf": now - 5,
        "exp": now + 3600 if expires is None else expires,
        "appid": principal,
        "idtyp": "app",
        "oid": principal,
        "sub": principal,
        "tid": TENANT,
        "ver": "1.0",
    }
    head = {"typ": "JWT", "alg": "HS256"}
    signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
    mac = hmac.digest(b"nobody checks this", signed.encode(), hashlib.sha256)
    return f"{signed}.{_b64(mac)}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _handler(identity: ManagedIdentity) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            header = self.headers.get("X-IDENTITY-HEADER")
            status, body = identity.answer(parse_qs(parts.query), header)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    return Handler
