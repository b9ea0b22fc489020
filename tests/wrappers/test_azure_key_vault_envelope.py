"""
Envelopes of Azure Key Vault beside .NET's own: published values, and a ring that .NET wrote.
"""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from azure.core.rest import HttpRequest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from kagimori import open_ring
from kagimori.crypto.aead import cbc_encrypt
from kagimori.errors import KeyWrapError
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import CONTEXT, SECRET, meaning
from kagimori.wrappers import key_vault_envelope as envelopes
from kagimori.wrappers.azure_key_vault import AzureKeyVaultWrapper
from kagimori.wrappers.key_vault_envelope import KeyVaultEnvelope
from tests.doubles.key_vault import USER, KeyVault

VECTORS = Path(__file__).parents[1] / "vectors" / "aspnet"
DATA_KEY = IV = bytes(range(16))
# AzureKeyVaultXmlEncryptorTests.cs of azure-sdk-for-net.
VALUE = "VfLYL2prdymawfucH3Goso0zkPbQ4/GKqUsj2TRtLzsBPz7p7cL1SQaY6I29xSlsPQf6IjxHSz4sDJ427GvlLQ=="
WRAPPED_KEY = "Dw4NDAsKCQgHBgUEAwIBAA=="
OLD = (
    "Microsoft.AspNetCore.DataProtection.AzureKeyVault.AzureKeyVaultXmlDecryptor, "
    "Microsoft.AspNetCore.DataProtection.AzureKeyVault, Version=3.1.24.0, Culture=neutral, "
    "PublicKeyToken=adb9793829ddae60"
)


def test_dotnets_published_value_is_made_to_the_byte():
    """
    AES-128-CBC over byte order mark, declaration and element: the value of Azure's own test.
    """
    value = envelopes.encrypt("<Element/>", DATA_KEY, IV)
    assert VALUE == b64encode(value).decode()

    wrapped = envelopes.write(KeyVaultEnvelope("KeyId", DATA_KEY[::-1], IV, value))
    parts = {part.tag: part.text for part in xml.children(xml.parse(wrapped.child))}
    assert parts == {
        "kid": "KeyId",
        "key": WRAPPED_KEY,
        "iv": "AAECAwQFBgcICQoLDA0ODw==",
        "value": VALUE,
    }
    read = envelopes.read(wrapped, CONTEXT)
    assert "<Element />" == envelopes.decrypt(read, read.wrapped_key[::-1], CONTEXT)


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize(
    "head", ["", xml.BOM, xml.DECLARATION, xml.BOM + xml.DECLARATION]
)
def test_data_keys_of_all_sizes_and_all_heads_are_read(size: int, head: str):
    """
    AES-128, -192 and -256, with and without byte order mark and declaration.
    """
    data_key = bytes(range(size))
    value = cbc_encrypt(data_key, IV, (head + SECRET).encode())
    envelope = KeyVaultEnvelope("KeyId", b"wrapped", IV, value)

    assert meaning(SECRET) == meaning(envelopes.decrypt(envelope, data_key, CONTEXT))
    for wrong in (b"", data_key[:-1], data_key + b"x", data_key[::-1]):
        with pytest.raises(KeyWrapError, match="altered"):
            envelopes.decrypt(envelope, wrong, CONTEXT)


@pytest.mark.parametrize("kind", [envelopes.DECRYPTOR, OLD])
def test_both_packages_of_dotnet_are_known(kind: str):
    """
    Today's class and the one of the package before it name the same envelope.
    """
    assert envelopes.matches(WrappedSecret(kind, ""))
    assert not envelopes.matches(WrappedSecret(kind.replace("Xml", "Yml"), ""))


@given(st.binary(max_size=80), st.binary(max_size=20), st.binary(max_size=64))
def test_k1_whatever_stands_in_an_envelope_is_one_error(
    value: bytes, iv: bytes, data_key: bytes
):
    """
    K1: any bytes as IV, value and data key open to an element, or are one error.
    """
    wrapped = envelopes.write(KeyVaultEnvelope("KeyId", b"wrapped", iv, value))
    with suppress(KeyWrapError):
        read = envelopes.read(wrapped, CONTEXT)
        xml.parse(envelopes.decrypt(read, data_key, CONTEXT))
    assert envelopes.matches(wrapped)


class Rerouted:
    """
    A client of the SDK for a vault on the Internet, whose requests go to a double.
    """

    def __init__(self, vault: KeyVault, key_id: str) -> None:
        self.key_id = key_id
        self.vault = vault
        self.credential = vault.grant(*USER)
        self.paths: list[str] = []

    def send_request(self, request: HttpRequest, **_: object) -> Any:
        from tests.doubles.tls_server import Request

        path = request.url.removeprefix("https://contoso.vault.azure.net")
        self.paths.append(path)
        token = self.credential.get_token("https://vault.azure.net/.default").token
        body = str(request.content or "").encode()
        asked = Request(
            request.method, f"{path}?api-version=7.6", f"Bearer {token}", body
        )
        return Answer(*self.vault.respond(asked))


class Answer:
    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status_code, self.body, self.headers = status, body, headers

    def json(self) -> Any:
        return json.loads(self.body)


@pytest.mark.double
def test_a_ring_that_dotnet_wrapped_is_read(tmp_path: Path):
    """
    A ring written by real .NET through its Key Vault package opens, payloads and all.
    """
    cases = json.loads((VECTORS / "rings.json").read_text())
    (case,) = [case for case in cases if case["wrapped"] == "azure-key-vault"]
    pem = (VECTORS / "rings" / case["private_key"]).read_bytes()
    version = case["kid"].rpartition("/")[2]
    with KeyVault.running(tmp_path) as vault:
        vault.create(private=load_pem_private_key(pem, None), version=version)
        client = Rerouted(vault, case["kid"])
        ring = open_ring(
            f"file://{VECTORS}/rings/{case['ring']}?layout=document",
            application=case["application"],
            wrapper=AzureKeyVaultWrapper.from_cryptography_client(client),
            read_only=True,
        )
        protector = ring.protector(*case["purposes"])
        for payload in case["payloads"]:
            opened = protector.unprotect(payload["payload"]).payload
            assert payload["plaintext"] == b64encode(opened).decode()

    assert [f"/keys/ring/{version}/unwrapkey"] == client.paths
