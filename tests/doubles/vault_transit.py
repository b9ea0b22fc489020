"""
A double of the transit engine of Vault and OpenBao: their HTTP API, and real AES-256-GCM.

It keeps to the API's documentation and to the texts of errors that both programs share: tokens,
namespaces, policies by path and capability, key versions with ``min_decryption_version``,
``associated_data``, keys made by encrypting where the policy has ``create``, sealing, and rate
limit quotas.
"""

from __future__ import annotations

import binascii
import json
import re
import secrets
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_CIPHERTEXT = re.compile(r"vault:v(\d+):(.*)", re.DOTALL)
_DENIED = "1 error occurred:\n\t* permission denied\n\n"
_INVALID_TOKEN = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"


class AnswerError(Exception):
    """
    An answer other than success.
    """

    def __init__(self, status: int, *errors: str, **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.errors = errors
        self.headers = headers


@dataclass
class Key:
    """
    One transit key with its versions, numbered from 1.
    """

    type: str = "aes256-gcm96"
    derived: bool = False
    min_decryption_version: int = 1
    versions: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)])

    def rotate(self) -> None:
        """
        Make a new version, which encrypts from now on.
        """
        self.versions.append(secrets.token_bytes(32))

    def encrypt(self, plaintext: bytes, context: str, associated: bytes) -> str:
        """
        Return a ciphertext of the newest version.
        """
        self._require(context, associated)
        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self.versions[-1]).encrypt(nonce, plaintext, associated)
        return f"vault:v{len(self.versions)}:{b64encode(nonce + sealed).decode()}"

    def decrypt(self, ciphertext: str, context: str, associated: bytes) -> bytes:
        """
        Return the plaintext, or refuse with the words of the engine.
        """
        self._require(context, associated)
        matched = _CIPHERTEXT.fullmatch(ciphertext)
        if matched is None:
            raise AnswerError(400, "invalid ciphertext: no prefix")
        number = int(matched[1])
        if number > len(self.versions):
            raise AnswerError(400, "invalid ciphertext: version is too new")
        if number < self.min_decryption_version:
            raise AnswerError(
                400, "ciphertext or signature version is disallowed by policy (too old)"
            )
        try:
            raw = b64decode(matched[2], validate=True)
        except binascii.Error:
            raise AnswerError(
                400, "invalid ciphertext: could not decode base64"
            ) from None
        if len(raw) < 12:
            raise AnswerError(400, "invalid ciphertext length")
        try:
            return AESGCM(self.versions[number - 1]).decrypt(
                raw[:12], raw[12:], associated
            )
        except InvalidTag:
            raise AnswerError(400, "cipher: message authentication failed") from None

    def _require(self, context: str, associated: bytes) -> None:
        if associated and self.type.startswith("rsa"):
            raise AnswerError(
                400,
                f"'[0].associated_data' provided for non-AEAD cipher suite {self.type}",
            )
        if self.derived and not context:
            raise AnswerError(
                400,
                "missing 'context' for key derivation; the key was created using a "
                "derived key, which means additional, per-request information must be "
                "included in order to perform operations with the key",
            )


class Vault:
    """
    The server's state, and the switches that a test turns.

    Attributes:
        policy: capabilities by path below the mount, such as ``encrypt/ring``.
        tokens: what opens the door.
        namespace: where the mount is.
        is_recent: whether the texts are those since Vault 1.13.
        faults: answered, one a call, before anything is looked at.
        held: while it is clear, calls wait.
        calls: the paths called.
    """

    def __init__(self) -> None:
        self.mount = "transit"
        self.namespace = ""
        self.keys: dict[str, Key] = {}
        self.policy: dict[str, set[str]] = {}
        self.tokens = {"hvs.test-token"}
        self.is_sealed = False
        self.is_recent = True
        self.faults: deque[AnswerError] = deque()
        self.held = threading.Event()
        self.held.set()
        self.calls: list[str] = []
        self.port = 0
        self.scheme = "http"

    @property
    def url(self) -> str:
        """
        Where it listens.
        """
        return f"{self.scheme}://localhost:{self.port}"

    def create(self, name: str, **options: object) -> Key:
        """
        Make a key, and let everybody encrypt and decrypt by it.
        """
        key = self.keys[name] = Key(**options)
        self.policy[f"encrypt/{name}"] = {"update"}
        self.policy[f"decrypt/{name}"] = {"update"}
        return key

    def throttle(self, retry_after: str | None) -> None:
        """
        Let the next call run into the rate limit quota.
        """
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        text = 'request path "transit/encrypt/ring": rate limit quota exceeded'
        self.faults.append(AnswerError(429, text, **headers))

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> dict:
        """
        Answer a request to ``/v1/`` and this path.
        """
        self.calls.append(path)
        self.held.wait(30)
        if self.faults:
            raise self.faults.popleft()
        if self.is_sealed:
            raise AnswerError(503, "Vault is sealed")
        if headers.get("x-vault-token") not in self.tokens:
            raise AnswerError(403, _INVALID_TOKEN if self.is_recent else _DENIED)
        if path == "auth/token/lookup-self":
            return {"policies": ["default", "ring"]}
        if headers.get("x-vault-namespace", "").strip("/") != self.namespace:
            raise AnswerError(403, _DENIED)
        if not path.startswith(f"{self.mount}/"):
            raise AnswerError(
                404, f'no handler for route "{path}". route entry not found.'
            )
        return self._engine(method, path.removeprefix(f"{self.mount}/"), body)

    def _engine(self, method: str, path: str, body: bytes) -> dict:
        verb, _, name = path.partition("/")
        key = self.keys.get(name)
        # The engine asks for "create" where the call would make the key.
        needed = "create" if verb == "encrypt" and key is None else "update"
        if needed not in self.policy.get(path, set()):
            raise AnswerError(403, _DENIED)
        if method not in {"POST", "PUT"} or verb not in {"encrypt", "decrypt"}:
            raise AnswerError(405, "unsupported operation")
        if key is None and needed == "create":
            key = self.keys[name] = Key()
        if key is None:
            raise AnswerError(400, "encryption key not found")
        given = json.loads(body)
        context = given.get("context", "")
        associated = b64decode(given.get("associated_data", ""), validate=True)
        if verb == "encrypt":
            plaintext = b64decode(given["plaintext"], validate=True)
            ciphertext = key.encrypt(plaintext, context, associated)
            return {"ciphertext": ciphertext, "key_version": len(key.versions)}
        plaintext = key.decrypt(given["ciphertext"], context, associated)
        return {"plaintext": b64encode(plaintext).decode()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    vault: Vault

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        named = {name.lower(): value for name, value in self.headers.items()}
        headers: dict[str, str] = {}
        try:
            path = self.path.removeprefix("/v1/")
            data = self.vault.answer(self.command, path, named, body)
            status, answer = 200, {"request_id": "1", "data": data}
        except AnswerError as error:
            status, answer = error.status, {"errors": list(error.errors)}
            headers = error.headers
        raw = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the standard library's names

    def log_message(self, *_: object) -> None:
        """
        Be quiet.
        """


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._open: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        """
        Keep the connection in mind, to be closed with the server.
        """
        connection, address = super().get_request()
        self._open.append(connection)
        return connection, address

    def server_close(self) -> None:
        """
        Close what clients keep open as well: the server is down.
        """
        super().server_close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """
        A client that went away is no news.
        """


@contextmanager
def serving(
    vault: Vault, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Vault]:
    """
    Serve on a loopback port, a free one unless one is named; over TLS with a context.
    """
    handler = type("Handler", (_Handler,), {"vault": vault})
    server = _Server(("127.0.0.1", port), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        vault.scheme = "https"
    vault.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        vault.held.set()
        server.shutdown()
        server.server_close()
        thread.join()
