"""
Wrapping by a symmetric key of Google Cloud KMS.

    gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K[/cryptoKeyVersions/N]
        ?endpoint=https://HOST   an address instead of Google's own
        &also=projects/…         a further key, for reading; repeatable

Rules of this module:

1. The key ring key's id goes along as additional authenticated data, so that Cloud KMS itself
   refuses an envelope that was moved to another key.
2. CRC32C is checked in both directions, as Google asks: what was damaged on the way is neither
   stored nor used, and asked for once more.
3. Decrypting always names the configured key; the service finds the version in the ciphertext,
   so that entries of older versions open after a rotation.
4. One call waits `timeout` seconds at most; one more try follows where nothing was answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from kagimori.addresses import Address
from kagimori.errors import ConfigError, KagimoriError, KeyWrapError
from kagimori.events import EventSink
from kagimori.per_process import PerProcess
from kagimori.wrappers.envelope import Envelope, EnvelopeFormat
from kagimori.wrappers.gcp_client import EncryptAnswer, KmsClient, maker
from kagimori.wrappers.gcp_faults import DamagedError, fault, may_try_again
from kagimori.wrappers.sealing import Sealed, SealingWrapper, UnopenableError

ENVELOPES = EnvelopeFormat("gcp-kms", "GcpKmsXmlDecryptor")

TIMEOUT = 5.0
"""Seconds that one call may take, connecting included."""

_NAME = re.compile(
    r"(projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+)"
    r"(/cryptoKeyVersions/[1-9][0-9]*)?"
)
_T = TypeVar("_T")


class GcpKmsWrapper(SealingWrapper):
    """
    Wraps by a key of Cloud KMS. Thread-safe; each process makes a client of its own.

    Args:
        key: the key's full name; with a version, new keys are wrapped by that version.
        also: full names of further keys, for reading.
        endpoint: another address of the service, such as a private one.
        client: a client, or a function that makes one (which is better where processes fork);
            left out: by the application's default credentials.
        timeout: seconds that a call may take.

    Raises:
        ConfigError: the name or the endpoint is malformed.
        InsecureConfigError: the endpoint is in the clear and not on this machine.
    """

    def __init__(
        self,
        key: str,
        *,
        also: Sequence[str] = (),
        endpoint: str | None = None,
        client: KmsClient | Callable[[], KmsClient] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        make = maker(endpoint) if client is None else _made(client)
        clients = PerProcess(make)
        sealers = [_GcpKey(one, clients, timeout) for one in (key, *also)]
        super().__init__(sealers[0], ENVELOPES, also=sealers[1:])


def open_wrapper(address: Address, events: EventSink) -> GcpKmsWrapper:
    """
    Return the wrapper of a ``gcpkms:`` address.

    Raises:
        ConfigError: see `GcpKmsWrapper`.
    """
    address.allow("endpoint", "also")
    return GcpKmsWrapper(
        address.path,
        also=address.options.get("also", ()),
        endpoint=address.option("endpoint"),
    )


def _made(client: KmsClient | Callable[[], KmsClient]) -> Callable[[], KmsClient]:
    return client if callable(client) else lambda: client


class _GcpKey:
    """
    The `kagimori.wrappers.sealing.Sealer` of this module.
    """

    def __init__(self, key: str, client: PerProcess[KmsClient], timeout: float) -> None:
        matched = _NAME.fullmatch(key)
        if matched is None:
            raise ConfigError(
                "A key of Cloud KMS is named by its full resource name.",
                hint="Write gcpkms:projects/PROJECT/locations/LOCATION/keyRings/RING/"
                "cryptoKeys/KEY.",
            )
        self._name = key
        self._key = matched[1]
        self._client = client
        self._timeout = timeout

    @property
    def name(self) -> str:
        return f"Google Cloud KMS {self._name}"

    def seal(self, data_key: bytes, context: str) -> Sealed:
        aad = context.encode()
        request: dict[str, object] = {
            "name": self._name,
            "plaintext": data_key,
            "plaintext_crc32c": crc32c(data_key),
            "additional_authenticated_data": aad,
            "additional_authenticated_data_crc32c": crc32c(aad),
        }

        def call() -> EncryptAnswer:
            answer = self._client.get().encrypt(
                request, retry=None, timeout=self._timeout
            )
            if (
                not answer.verified_plaintext_crc32c
                or not answer.verified_additional_authenticated_data_crc32c
                or crc32c(answer.ciphertext) != answer.ciphertext_crc32c
            ):
                raise DamagedError
            return answer

        answer = self._called("encrypt", call)
        # A version of another key here would be found out only when nothing opens any more.
        if not answer.name.startswith(f"{self._key}/cryptoKeyVersions/"):
            raise KeyWrapError(
                f"{self.name} answered in the name of another key.",
                hint="Check the endpoint: something else answers there.",
            )
        return Sealed(answer.ciphertext, answer.name)

    def is_named(self, envelope: Envelope) -> bool:
        return envelope.wrapping_key.startswith(f"{self._key}/cryptoKeyVersions/")

    def open(self, envelope: Envelope, context: str) -> bytes:
        if not self.is_named(envelope):
            raise UnopenableError(
                f"The key {context} is wrapped by {envelope.wrapping_key}, which is not "
                f"{self._key}.",
                hint="Name that key for reading (also=), or rewrap the ring where it is at "
                "hand.",
            )
        aad = context.encode()
        request: dict[str, object] = {
            "name": self._key,
            "ciphertext": envelope.wrapped_key,
            "ciphertext_crc32c": crc32c(envelope.wrapped_key),
            "additional_authenticated_data": aad,
            "additional_authenticated_data_crc32c": crc32c(aad),
        }

        def call() -> bytes:
            answer = self._client.get().decrypt(
                request, retry=None, timeout=self._timeout
            )
            if crc32c(answer.plaintext) != answer.plaintext_crc32c:
                raise DamagedError
            return answer.plaintext

        return self._called("decrypt", call)

    def dud(self) -> Sealed:
        return Sealed(bytes(64), f"{self._key}/cryptoKeyVersions/1")

    def _called(self, verb: str, call: Callable[[], _T]) -> _T:
        for is_last in (False, True):
            try:
                return call()
            except KagimoriError:
                raise
            except Exception as error:  # noqa: BLE001 - an adapter's surprise is declared
                if is_last or not may_try_again(error):
                    # Not chained: a foreign error may hold what was sent to be wrapped.
                    raise fault(self.name, verb, error, self._timeout) from None
        raise AssertionError  # the last round returns or raises


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """
    Return the CRC-32C (Castagnoli) of some bytes (RFC 3720 appendix B.4).
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
