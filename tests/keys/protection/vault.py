"""
A small vault of its own: a `KeyWrapper` with versions, that fails when a test says so.
"""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from secrets import token_bytes

from kagimori.crypto.aead import gcm_open, gcm_seal
from kagimori.errors import KeyWrapError, ProtectionError
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret


class Vault:
    """
    Wraps by AES-256-GCM under the newest of its keys; whoever has the vault has the keys.

    Attributes:
        versions: its keys, by version; one that is taken out is gone for good.
        fault: raised instead of an answer.
        broken: versions that are disabled.
        busy: how many calls are under way, and the most there were at once.
        gate: waited for in each call, so that calls meet.
    """

    is_plaintext = False

    def __init__(self, name: str = "vault", kind: str = "Test.VaultXmlDecryptor"):
        self.name = name
        self.kind = f"{kind}, Test"
        self.versions: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.fault: Exception | None = None
        self.spoils = False
        self.unwrapped: list[str] = []
        self.wraps = 0
        self.most_at_once = 0
        self.gate: threading.Barrier | None = None
        self._turns = 0
        self._busy = 0
        self._lock = threading.Lock()
        self.turn()

    @property
    def unwraps(self) -> int:
        return len(self.unwrapped)

    def turn(self) -> str:
        """
        Make a newer version of the wrapping key.
        """
        self._turns += 1
        version = f"{self.name}/{self._turns}"
        self.versions[version] = token_bytes(32)
        return version

    def newest(self) -> str:
        self._ask()
        return next(reversed(self.versions))

    def key_of(self, wrapped: WrappedSecret) -> str | None:
        return xml.parse(wrapped.child).get("kid")

    def wrap(self, plaintext: str, context: str) -> WrappedSecret:
        self.wraps += 1
        version = self.newest()
        nonce = token_bytes(12)
        text = plaintext.replace("<value>", "<value>AAAA") if self.spoils else plaintext
        sealed = gcm_seal(
            self.versions[version], nonce, text.encode(), context.encode()
        )
        body = b64encode(nonce + sealed).decode()
        root = xml.element("vaultKey", {"kid": version}, body)
        return WrappedSecret(self.kind, xml.write(root))

    def can_unwrap(self, wrapped: WrappedSecret) -> bool:
        return wrapped.decryptor_type == self.kind

    def unwrap(self, wrapped: WrappedSecret, context: str) -> str:
        with self._lock:
            self.unwrapped.append(context)
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
        try:
            if self.gate is not None:
                self.gate.wait(10)
            self._ask()
            root = xml.parse(wrapped.child)
            version = root.get("kid", "")
            if version not in self.versions or version in self.broken:
                raise KeyWrapError(f"{self.name} has no usable key {version}.")
            raw = b64decode(xml.text_of(root))
            try:
                return gcm_open(
                    self.versions[version], raw[:12], raw[12:], context.encode()
                ).decode()
            except ProtectionError:
                raise KeyWrapError(f"{self.name} did not wrap that.") from None
        finally:
            with self._lock:
                self._busy -= 1

    def _ask(self) -> None:
        if self.fault is not None:
            raise self.fault


def down(retry_after: float | None = None) -> KeyWrapError:
    """
    Return what a vault says that is throttled or does not answer.
    """
    return KeyWrapError(
        "the vault does not answer", transient=True, retry_after=retry_after
    )
