"""
A double of Google Cloud KMS: gRPC with the SDK's own messages, and real AES-256-GCM.

It keeps to the service's documentation: key versions and their states, additional
authenticated data, CRC32C in every direction, IAM permissions by name, and status codes with
the details that the service sends.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import types
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

_SERVICE = "google.cloud.kms.v1.KeyManagementService"
_VERSION = re.compile(r"(projects/.+/cryptoKeys/[^/]+)(?:/cryptoKeyVersions/(\d+))?")
MOST_PLAINTEXT = 64 * 1024


def crc32c(data: bytes) -> int:
    """
    Return the CRC-32C (Castagnoli) of some bytes, bit by bit (RFC 3720 appendix B.4).
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class RefusalError(Exception):
    """
    A status to be answered.
    """

    def __init__(self, code: str, message: str, *details: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


@dataclass
class Key:
    """
    One CryptoKey with its versions, numbered from 1.
    """

    name: str
    versions: list[bytes] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    primary: int = 0
    purpose: str = "ENCRYPT_DECRYPT"

    def rotate(self) -> str:
        """
        Make a new version, the primary one.
        """
        self.versions.append(secrets.token_bytes(32))
        self.states.append("ENABLED")
        self.primary = len(self.versions)
        return f"{self.name}/cryptoKeyVersions/{self.primary}"

    def material(self, number: int) -> AESGCM:
        """
        Return a version's cipher, if it is enabled.
        """
        state = self.states[number - 1]
        if state != "ENABLED":
            name = f"{self.name}/cryptoKeyVersions/{number}"
            violation = error_details_pb2.PreconditionFailure.Violation(
                type=f"KEY_{state}", subject=name, description=f"{name} is not enabled"
            )
            raise RefusalError(
                "FAILED_PRECONDITION",
                f"{name} is not enabled, current state is: {state}.",
                error_details_pb2.PreconditionFailure(violations=[violation]),
            )
        return AESGCM(self.versions[number - 1])


class GcpKms:
    """
    The service's state, and the switches that a test turns.

    Attributes:
        permissions: what the caller may do; take one away to see it missed.
        faults: answered, one a call, before anything is looked at.
        held: while it is clear, calls wait.
        calls: the verbs called, in order.
        headers: each call's metadata.
        corrupt: fields of answers to damage: ``ciphertext``, ``plaintext``, ``name``,
            ``unverified``.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.permissions = {
            "cloudkms.cryptoKeyVersions.useToEncrypt",
            "cloudkms.cryptoKeyVersions.useToDecrypt",
        }
        self.faults: deque[RefusalError] = deque()
        self.held = threading.Event()
        self.held.set()
        self.calls: list[str] = []
        self.headers: list[dict[str, str | bytes]] = []
        self.corrupt: set[str] = set()
        self.port = 0

    @property
    def endpoint(self) -> str:
        """
        Where it listens.
        """
        return f"http://127.0.0.1:{self.port}"

    def create(self, name: str) -> Key:
        """
        Make a key with its first version.
        """
        key = self.keys[name] = Key(name)
        key.rotate()
        return key

    def throttle(self, seconds: float | None) -> None:
        """
        Let the next call run into the quota.
        """
        details = []
        if seconds is not None:
            delay = Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        self.faults.append(
            RefusalError(
                "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric.", *details
            )
        )

    def encrypt(self, request: types.EncryptRequest) -> types.EncryptResponse:
        """
        Answer Encrypt.
        """
        key, version = self._key(request.name, "useToEncrypt")
        checked = _checked(request, "plaintext", "additional_authenticated_data")
        if len(request.plaintext) > MOST_PLAINTEXT:
            raise RefusalError("INVALID_ARGUMENT", "plaintext is too large.")
        number = version or key.primary
        nonce = secrets.token_bytes(12)
        sealed = key.material(number).encrypt(
            nonce, request.plaintext, request.additional_authenticated_data
        )
        ciphertext = number.to_bytes(4, "big") + nonce + sealed
        name = f"{key.name}/cryptoKeyVersions/{number}"
        return types.EncryptResponse(
            name="projects/x" if "name" in self.corrupt else name,
            ciphertext=self._damaged("ciphertext", ciphertext),
            ciphertext_crc32c=crc32c(ciphertext),
            verified_plaintext_crc32c=checked[0] and "unverified" not in self.corrupt,
            verified_additional_authenticated_data_crc32c=checked[1],
        )

    def decrypt(self, request: types.DecryptRequest) -> types.DecryptResponse:
        """
        Answer Decrypt. The service finds the version in the ciphertext.
        """
        key, version = self._key(request.name, "useToDecrypt")
        if version is not None:
            raise RefusalError("INVALID_ARGUMENT", "name is not a CryptoKey.")
        _checked(request, "ciphertext", "additional_authenticated_data")
        number = int.from_bytes(request.ciphertext[:4], "big")
        if not 1 <= number <= len(key.versions):
            raise RefusalError(
                "INVALID_ARGUMENT",
                "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
            )
        try:
            plaintext = key.material(number).decrypt(
                request.ciphertext[4:16],
                request.ciphertext[16:],
                request.additional_authenticated_data,
            )
        except InvalidTag:
            raise RefusalError(
                "INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid."
            ) from None
        return types.DecryptResponse(
            plaintext=self._damaged("plaintext", plaintext),
            plaintext_crc32c=crc32c(plaintext),
            used_primary=number == key.primary,
        )

    def _key(self, name: str, verb: str) -> tuple[Key, int | None]:
        self.calls.append(verb)
        self.held.wait(30)
        if self.faults:
            raise self.faults.popleft()
        matched = _VERSION.fullmatch(name)
        if matched is None:
            raise RefusalError("INVALID_ARGUMENT", f"Invalid resource name: {name}.")
        permission = f"cloudkms.cryptoKeyVersions.{verb}"
        if permission not in self.permissions:
            info = error_details_pb2.ErrorInfo(
                reason="IAM_PERMISSION_DENIED",
                domain="cloudkms.googleapis.com",
                metadata={"permission": permission, "resource": name},
            )
            raise RefusalError(
                "PERMISSION_DENIED",
                f"Permission '{permission}' denied on resource '{name}' "
                "(or it may not exist).",
                info,
            )
        key = self.keys.get(matched[1])
        if key is None:
            raise RefusalError("NOT_FOUND", f"CryptoKey {name} not found.")
        if key.purpose != "ENCRYPT_DECRYPT":
            raise RefusalError(
                "FAILED_PRECONDITION",
                f"{name} has purpose {key.purpose}, which is not usable here.",
            )
        return key, int(matched[2]) if matched[2] else None

    def _damaged(self, field: str, data: bytes) -> bytes:
        return data[:-1] + bytes((data[-1] ^ 1,)) if field in self.corrupt else data


def _checked(request: object, *fields: str) -> list[bool]:
    verified = []
    for name in fields:
        claimed = getattr(request, f"{name}_crc32c")
        if claimed is not None and claimed != crc32c(getattr(request, name)):
            raise RefusalError(
                "INVALID_ARGUMENT",
                f"The checksum in field {name}_crc32c did not match the data in "
                f"field {name}.",
            )
        verified.append(claimed is not None)
    return verified


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, service: GcpKms) -> None:
        self._service = service

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        methods = {
            f"/{_SERVICE}/Encrypt": (self._service.encrypt, types.EncryptRequest),
            f"/{_SERVICE}/Decrypt": (self._service.decrypt, types.DecryptRequest),
        }
        if details.method not in methods:
            return None
        answer, kind = methods[details.method]
        self._service.headers.append(dict(details.invocation_metadata))

        def handle(request, context):
            try:
                return answer(request)
            except RefusalError as refusal:
                context.abort_with_status(_status(refusal))

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=kind.deserialize,
            response_serializer=lambda response: type(response).serialize(response),
        )


def _status(refusal: RefusalError) -> grpc.Status:
    status = status_pb2.Status(
        code=code_pb2.Code.Value(refusal.code), message=refusal.message
    )
    for detail in refusal.details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


@contextmanager
def serving(
    service: GcpKms,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[GcpKms]:
    """
    Serve on a loopback port, a free one unless one is named; over TLS with credentials.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(16),
        handlers=[_Handler(service)],
        options=[("grpc.so_reuseport", 0)],
    )
    where = f"127.0.0.1:{port}"
    service.port = (
        server.add_secure_port(where, credentials)
        if credentials
        else server.add_insecure_port(where)
    )
    server.start()
    try:
        yield service
    finally:
        service.held.set()
        server.stop(None).wait()
