"""
Wrapping by a key of the transit engine of HashiCorp Vault or OpenBao.

    vault:https://HOST:8200/MOUNT/KEY?token-env=VAULT_TOKEN       (the default)
                                      token-file=/path            read anew for each call
                                      namespace=… ca=/path.pem
                                      also=KEY                for reading; repeatable

Rules of this module:

1. The key ring key's id goes along as ``associated_data``, so that the engine itself refuses an
   envelope that was moved to another key. Servers too old to know it leave that to the envelope.
2. Only the configured key is asked. The name in an envelope is for people: a mount that was
   moved or a namespace that was renamed changes it, and the ring still opens.
3. Encrypting by a key that is not there would make one, where the policy has ``create``; so it
   is made sure, before the first time, that the key is there.
4. The token goes over TLS, or to this machine; redirections are not followed with it.
5. A call connects within 2 s and is answered within `timeout`; one more try follows a
   connection that broke.
"""

from __future__ import annotations

import binascii
import contextlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from kagimori.addresses import Address, absolute_path, secret_names
from kagimori.errors import ConfigError, InsecureConfigError, KeyWrapError
from kagimori.events import EventSink
from kagimori.per_process import PerProcess
from kagimori.secret_sources import from_environment, from_file, warn_of_mode
from kagimori.wrappers.envelope import Envelope, EnvelopeFormat
from kagimori.wrappers.sealing import Sealed, SealingWrapper, UnopenableError
from kagimori.wrappers.vault_client import Answer, VaultClient, connect
from kagimori.wrappers.vault_faults import Faults, KeyAbsentError

ENVELOPES = EnvelopeFormat("vault-transit", "VaultTransitXmlDecryptor")

TIMEOUT = 5.0
"""Seconds that an answer may take."""

_KEY = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_MOUNT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_NAMESPACE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_./ -]*")
_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,8}):[A-Za-z0-9+/]+={0,2}")
_DUD = b"vault:v999999999:" + b64encode(bytes(44))


class VaultTransitWrapper(SealingWrapper):
    """
    Wraps by a transit key. Thread-safe; each process makes connections of its own.

    Args:
        url: of the server, the mount and the key: ``https://vault:8200/transit/ring``.
        also: names of further keys of that mount, for reading.
        token: returns the token; asked for each call, so that a renewed one is seen.
        namespace: of Vault Enterprise and OpenBao; empty for the root.
        ca: a PEM file with the authorities to trust; left out: the system's.
        timeout: seconds that an answer may take.

    Raises:
        ConfigError: the URL or the namespace is malformed.
        InsecureConfigError: the server is asked in the clear and is not this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], bytes],
        also: Sequence[str] = (),
        namespace: str = "",
        ca: Path | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        server, mount, key = _parts(url)
        if namespace and not _NAMESPACE.fullmatch(namespace):
            raise ConfigError("The namespace of a vault: address is malformed.")

        def make() -> VaultClient:
            return connect(server, namespace=namespace, ca=ca, timeout=timeout)

        clients = PerProcess(make)
        sealers = []
        for one in (key, *also):
            if not _KEY.fullmatch(one):
                raise ConfigError(
                    "A key of a transit engine is named by letters, . and -."
                )
            path = f"{namespace.strip('/')}/{mount}/{one}".lstrip("/")
            faults = Faults(path, mount, one, server, timeout)
            sealers.append(_TransitKey(path, mount, one, token, clients, faults))
        super().__init__(sealers[0], ENVELOPES, also=sealers[1:])


def open_wrapper(address: Address, events: EventSink) -> VaultTransitWrapper:
    """
    Return the wrapper of a ``vault:`` address.

    Raises:
        ConfigError: see `VaultTransitWrapper`; or the token is not where it is said to be.
    """
    address.allow("namespace", "ca", "also", *secret_names("token"))
    given = address.secret("token")
    file = address.option("token-file")
    if file is not None:
        path = absolute_path(file, "The file of the token")
        warn_of_mode(path, events)
        token = _of_file(path)
    else:
        token = _fixed(given or from_environment("VAULT_TOKEN"))
    ca = address.option("ca")
    return VaultTransitWrapper(
        address.path,
        token=token,
        also=address.options.get("also", ()),
        namespace=address.option("namespace") or "",
        ca=None if ca is None else absolute_path(ca, "The file of authorities"),
    )


def _fixed(token: bytes) -> Callable[[], bytes]:
    return lambda: token


def _of_file(path: Path) -> Callable[[], bytes]:
    return lambda: from_file(path)


class _TransitKey:
    """
    The `kagimori.wrappers.sealing.Sealer` of this module.
    """

    def __init__(
        self,
        path: str,
        mount: str,
        key: str,
        token: Callable[[], bytes],
        client: PerProcess[VaultClient],
        faults: Faults,
    ) -> None:
        self._path = path
        self._mount = mount
        self._key = key
        self._token = token
        self._client = client
        self._faults = faults
        self._is_there = False

    @property
    def name(self) -> str:
        return f"transit key {self._path}"

    def seal(self, data_key: bytes, context: str) -> Sealed:
        self._require_key()
        body = {
            "plaintext": _b64(data_key),
            "associated_data": _b64(context.encode()),
        }
        ciphertext = self._called("encrypt", body, "ciphertext")
        matched = _CIPHERTEXT.fullmatch(ciphertext)
        if matched is None:
            raise self._faults.strange()
        self._is_there = True
        return Sealed(ciphertext.encode(), self._path, matched[1])

    def is_named(self, envelope: Envelope) -> bool:
        return envelope.wrapping_key == self._path

    def open(self, envelope: Envelope, context: str) -> bytes:
        # What is not a ciphertext of the engine is not sent to it.
        ciphertext = envelope.wrapped_key.decode("latin-1")
        matched = _CIPHERTEXT.fullmatch(ciphertext)
        if matched is None:
            raise UnopenableError(
                f"The envelope of the key {context} holds no ciphertext of a transit engine.",
                hint="Restore the ring from a backup.",
            )
        body = {
            "ciphertext": ciphertext,
            "associated_data": _b64(context.encode()),
        }
        try:
            plaintext = self._called("decrypt", body, "plaintext")
            self._is_there = True
            return binascii.a2b_base64(plaintext, strict_mode=True)
        except UnopenableError as error:
            if self.is_named(envelope):
                raise
            raise UnopenableError(
                f"{error.text} The envelope names {envelope.wrapping_key}.",
                hint=error.hint,
                detail=error.detail,
            ) from None
        except binascii.Error:
            raise self._faults.strange() from None

    def dud(self) -> Sealed:
        return Sealed(_DUD, self._path)

    def _require_key(self) -> None:
        """
        Make sure that the key is there, by asking to decrypt what it never encrypted.
        """
        if self._is_there:
            return
        body = {"ciphertext": _DUD.decode()}
        try:
            self._called("decrypt", body, "plaintext")
        except KeyAbsentError:
            raise
        except UnopenableError:
            self._is_there = True
        except KeyWrapError as error:
            if error.transient:
                raise
            # Without the right to decrypt it stays unknown; encrypting says what it says.

    def _called(self, verb: str, body: Mapping[str, str], wanted: str) -> str:
        try:
            token = self._token()
        except ConfigError as error:
            # Found when the ring was opened, so whoever renews it is just at it.
            raise KeyWrapError(error.text, hint=error.hint, transient=True) from None
        path = f"/v1/{quote(self._mount)}/{verb}/{quote(self._key)}"
        answer = self._sent(path, token, body, verb)
        if answer.status == 200:
            value = answer.data.get(wanted)
            if isinstance(value, str):
                return value
            raise self._faults.strange()
        raise self._faults.of_answer(
            verb, answer, is_known=lambda: self._is_known(token)
        )

    def _sent(
        self, path: str, token: bytes, body: Mapping[str, str] | None, verb: str
    ) -> Answer:
        for is_last in (False, True):
            try:
                return self._client.get().ask(path, token, body)
            except ConnectionResetError as error:
                if is_last:
                    raise self._faults.unreached(error) from None
            except (OSError, ValueError) as error:
                # Not chained: a foreign error may hold what was sent to be wrapped.
                raise self._faults.unreached(error) from None
        raise AssertionError  # the last round returns or raises

    def _is_known(self, token: bytes) -> bool:
        """
        Whether the server knows the token, which each token may ask by the default policy.
        """
        # In a namespace a token of the root may lack that right.
        if self._path != f"{self._mount}/{self._key}":
            return True
        with contextlib.suppress(KeyWrapError):
            answer = self._sent("/v1/auth/token/lookup-self", token, None, "lookup")
            return answer.status != 403
        return True


def _parts(url: str) -> tuple[str, str, str]:
    """
    Return server, mount and key of an address.
    """
    try:
        parts = urlsplit(url)
        is_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_host = urlsplit(""), False
    mount, _, key = parts.path.strip("/").rpartition("/")
    if (
        not is_host
        or parts.scheme not in {"http", "https"}
        or "@" in parts.netloc
        or not _MOUNT.fullmatch(mount)
        or not _KEY.fullmatch(key)
    ):
        raise ConfigError(
            "A vault: address names server, mount and key.",
            hint="Write vault:https://HOST:8200/transit/KEY.",
        )
    if parts.scheme == "http" and parts.hostname not in {
        "127.0.0.1",
        "::1",
        "localhost",
    }:
        raise InsecureConfigError(
            "Vault is asked over TLS: its token and the data keys would go in the clear.",
            hint="Write https://; ca=/path names an authority of your own.",
        )
    return f"{parts.scheme}://{parts.netloc}", mount, key


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")
