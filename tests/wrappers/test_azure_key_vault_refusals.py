"""
What Azure Key Vault refuses, and trouble that passes: each text says what to do.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kagimori.errors import KeyWrapError
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    SECRET,
    meaning,
)
from kagimori.wrappers.azure_key_vault import AzureKeyVaultWrapper
from tests.doubles.key_vault import USER, Credential, KeyVault
from tests.doubles.tls_server import Request, Response, TlsServer
from tests.servers.azurite import make_certificate
from tests.wrappers.key_vaults import replaced, trusted_vault, wrapper_of

pytestmark = pytest.mark.double


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyVault]:
    with trusted_vault(tmp_path, monkeypatch) as vault:
        yield vault


# --- what the vault refuses ------------------------------------------------------------


@pytest.mark.parametrize("is_rbac", [True, False], ids=["rbac", "policies"])
@pytest.mark.parametrize("right", sorted(USER))
def test_a_missing_right_is_named_with_its_remedy(
    vault: KeyVault, right: str, is_rbac: bool
):
    """
    The text says which right is missing, the hint names role and permissions; with it, all is
    well.
    """
    vault.create()
    vault.is_rbac = is_rbac
    wrapped = wrapper_of(vault).wrap(SECRET, CONTEXT)
    credential = vault.grant(*(USER - {right}))
    wrapper = wrapper_of(vault, credential)

    def use() -> None:
        if right == "unwrapKey":
            wrapper.unwrap(wrapped, CONTEXT)
        else:
            wrapper.wrap(SECRET, CONTEXT)

    with pytest.raises(KeyWrapError) as caught:
        use()
    assert f"The right {right} " in caught.value.text
    assert "Key Vault Crypto Service Encryption User" in caught.value.hint
    assert "get, wrapKey and unwrapKey (access policies)" in caught.value.hint
    assert not caught.value.transient
    vault.rights[credential.principal].add(right)
    wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)


def test_with_a_version_named_the_right_to_get_is_not_needed(vault: KeyVault):
    """
    Wrapping and unwrapping do with wrapKey and unwrapKey where nothing has to be looked up.
    """
    key_id = vault.create()
    credential = vault.grant("wrapKey", "unwrapKey")
    wrapper = wrapper_of(vault, credential, version="/" + key_id.rpartition("/")[2])

    wrapped = wrapper.wrap(SECRET, CONTEXT)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_disabled_version_is_told_of_and_opens_again_when_enabled(vault: KeyVault):
    """
    Old entries need their version enabled; the text names it, and a newer one goes on wrapping.
    """
    first = vault.create()
    wrapper = wrapper_of(vault)
    old = wrapper.wrap(SECRET, CONTEXT)
    vault.enable(first, enabled=False)

    for call in (
        lambda: wrapper.unwrap(old, CONTEXT),
        lambda: wrapper.wrap(SECRET, CONTEXT),
    ):
        with pytest.raises(KeyWrapError, match="is disabled") as caught:
            call()
        assert first in caught.value.text
        assert not caught.value.transient
    vault.create()
    wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)
    vault.enable(first, enabled=True)
    assert meaning(SECRET) == meaning(wrapper.unwrap(old, CONTEXT))


@pytest.mark.parametrize("kty", ["RSA", "RSA-HSM"])
def test_keys_that_permit_wrapping_alone_suffice(vault: KeyVault, kty: str):
    """
    RSA and RSA-HSM keys whose operations are exactly wrapKey and unwrapKey serve.
    """
    vault.create(kty=kty, operations=("wrapKey", "unwrapKey"))
    wrapper = wrapper_of(vault)

    wrapped = wrapper.wrap(SECRET, CONTEXT)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


@pytest.mark.parametrize(
    ("kty", "operations", "said"),
    [
        ("EC", ("sign", "verify"), "type EC"),
        ("EC-HSM", ("sign", "verify"), "type EC-HSM"),
        ("RSA", ("sign", "verify"), "does not permit unwrapKey and wrapKey"),
        ("RSA", ("wrapKey",), "does not permit unwrapKey"),
        ("RSA", ("unwrapKey",), "does not permit wrapKey"),
    ],
)
def test_a_key_that_cannot_serve_is_refused_before_it_wraps(
    vault: KeyVault, kty: str, operations: tuple[str, ...], said: str
):
    """
    An EC key, and one that does not permit both operations, is refused with what is wrong.
    """
    vault.create(kty=kty, operations=operations)

    with pytest.raises(KeyWrapError, match=said) as caught:
        wrapper_of(vault).wrap(SECRET, CONTEXT)
    assert caught.value.hint
    assert [("GET", "/keys/ring")] == vault.requests


def test_an_operation_taken_away_later_is_told_of(vault: KeyVault):
    """
    A version that no longer permits unwrapKey says so when it is asked.
    """
    key_id = vault.create()
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.permit(key_id, "wrapKey")

    with pytest.raises(KeyWrapError, match="does not permit unwrapKey"):
        wrapper.unwrap(wrapped, CONTEXT)
    vault.permit(key_id, "wrapKey", "unwrapKey")
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_key_that_is_not_there_is_told_of(vault: KeyVault):
    """
    A wrong name, and a version that is gone, are permanent and named.
    """
    key_id = vault.create()
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    gone = replaced(wrapped, key_id.rpartition("/")[2], "0" * 32)

    with pytest.raises(KeyWrapError, match=r"There is no key .*/keys/absent") as caught:
        wrapper_of(vault, name="absent").wrap(SECRET, CONTEXT)
    assert "recovered" in caught.value.hint
    with pytest.raises(KeyWrapError, match=r"There is no key .*/0000") as caught:
        wrapper.unwrap(gone, CONTEXT)
    assert not caught.value.transient


def test_k5_what_another_version_wrapped_does_not_open(vault: KeyVault):
    """
    K5: an envelope that names a wrong version is refused for good.
    """
    first, second = vault.create(), vault.create()
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    with pytest.raises(KeyWrapError, match="does not open the envelope") as caught:
        wrapper.unwrap(replaced(wrapped, second, first), CONTEXT)
    assert not caught.value.transient
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_token_of_another_tenant_is_told_of(vault: KeyVault):
    """
    A vault that does not take the token (401) says which identity to look at.
    """
    vault.create()
    stranger = Credential("x", issuer="https://sts.windows.net/another/")

    with pytest.raises(KeyWrapError, match="does not take our token") as caught:
        wrapper_of(vault, stranger).wrap(SECRET, CONTEXT)
    assert "tenant" in caught.value.hint
    assert not caught.value.transient


# --- trouble that passes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "Thu, 01 Jan 2015 00:00:00 GMT"}, 0.0),
        ({"Retry_After": "soon"}, None),
        ({}, None),
    ],
)
def test_throttling_is_handed_on_with_the_time_to_wait(
    vault: KeyVault, headers: dict[str, str], seconds: float | None
):
    """
    429 is transient, is not asked again at once, and carries Retry-After.
    """
    vault.create()
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.throttle(2, **headers)

    for _ in range(2):
        with pytest.raises(KeyWrapError, match="too often") as caught:
            wrapper.unwrap(wrapped, CONTEXT)
        assert caught.value.transient
        assert seconds == caught.value.retry_after
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_vault_that_is_down_is_transient_at_the_start_and_later(vault: KeyVault):
    """
    Opening asks nobody; each call says that the vault does not answer, until it does.
    """
    vault.create()
    with vault.stopped():
        wrapper = wrapper_of(vault)
        with pytest.raises(KeyWrapError, match="does not answer") as caught:
            wrapper.wrap(SECRET, CONTEXT)
        assert caught.value.transient
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    with vault.stopped(), pytest.raises(KeyWrapError, match="does not") as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert caught.value.transient
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_vault_that_hangs_is_waited_for_only_so_long(vault: KeyVault):
    """
    Two tries of the read timeout at most, then it is transient; later the same wrapper works.
    """
    vault.create()
    wrapper = wrapper_of(vault, read_seconds=0.3)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    began = time.monotonic()
    with (
        vault.stalled(),
        pytest.raises(KeyWrapError, match="does not answer") as caught,
    ):
        wrapper.unwrap(wrapped, CONTEXT)
    assert caught.value.transient
    assert time.monotonic() - began < 5
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_certificate_that_nobody_vouches_for_is_no_vault(
    vault: KeyVault, monkeypatch: pytest.MonkeyPatch
):
    """
    TLS is checked: where its authority is not known, no token is even asked for.
    """
    vault.create()
    credential = vault.grant(*USER)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")

    with pytest.raises(KeyWrapError, match="does not answer"):
        wrapper_of(vault, credential).wrap(SECRET, CONTEXT)
    assert [] == credential.asked
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(vault.ca))
    wrapper_of(vault, credential).wrap(SECRET, CONTEXT)


# --- what is no vault ----------------------------------------------------------------------

CHALLENGE = {
    "WWW-Authenticate": 'Bearer authorization="https://login.microsoftonline.com/x", '
    'resource="https://vault.azure.net"'
}


def refused(code: str, inner: str = "", message: str = "Refused.") -> bytes:
    """
    Return the body of a refusal.
    """
    error = {"code": code, "message": f"Operation {message}"}
    if inner:
        error["innererror"] = {"code": inner}
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (200, {}, b"<html>hello</html>", "is no Azure Key Vault"),
        (200, {}, b"[]", "is no Azure Key Vault"),
        (200, {}, b'{"key": 1}', "is no Azure Key Vault"),
        (
            200,
            {},
            b'{"key": {"kid": "https://x/y", "kty": "RSA"}}',
            "is no Azure Key Vault",
        ),
        (404, {}, b"not found", "refused get"),
        (401, {"WWW-Authenticate": "Basic"}, b"", "no Azure Key Vault|our token"),
        (403, {}, b"", "The right get"),
        (
            403,
            {},
            refused("Forbidden", "ForbiddenByFirewall"),
            "does not let this network",
        ),
        (
            403,
            {},
            refused("Forbidden", "", "on an expired key."),
            "outside of its dates",
        ),
        (403, {}, refused("Forbidden", "", "on a disabled key."), "is disabled"),
        (400, {}, refused("BadParameter"), "refused get .400 BadParameter"),
        (409, {}, refused("no word at all"), "refused get .409 no code"),
        (502, {}, b"<html>bad gateway</html>", "fails at the moment"),
    ],
)
def test_what_is_no_vault_is_told_of(
    vault: KeyVault,
    tmp_path: Path,
    status: int,
    headers: dict[str, str],
    body: bytes,
    said: str,
):
    """
    Whatever else answers at the address is one of our errors, and transient only for 5xx.
    """

    def respond(request: Request) -> Response:
        if request.authorization is None and status != 401:
            return Response(401, b"", dict(CHALLENGE))
        return Response(status, body, dict(headers))

    with serving(tmp_path, respond) as server:
        wrapper = AzureKeyVaultWrapper(
            f"https://localhost:{server.port}/keys/ring", credential=vault.grant()
        )
        with pytest.raises(KeyWrapError, match=said) as caught:
            wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient is (status == 502)


def test_no_token_goes_to_a_vault_that_names_another_domain(
    vault: KeyVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    Off this machine a challenge has to name the vault's own domain: a configured name that
    somebody else answers for gets no token of Azure's.
    """
    name = "ring.vault.example"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(make_certificate(tmp_path, name)))
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **named: resolve(
            "127.0.0.1" if host == name else host, *rest, **named
        ),
    )
    credential = Credential("somebody")
    asked: list[Request] = []

    def respond(request: Request) -> Response:
        asked.append(request)
        return Response(401, b"", dict(challenge))

    with serving(tmp_path, respond) as server:
        wrapper = AzureKeyVaultWrapper(
            f"https://{name}:{server.port}/keys/ring", credential=credential
        )
        challenge = dict(CHALLENGE)
        with pytest.raises(KeyWrapError, match="no Azure Key Vault of that domain"):
            wrapper.wrap(SECRET, CONTEXT)
        assert [] == credential.asked
        assert [None] == [request.authorization for request in asked]

        ours = f"https://vault.example:{server.port}"
        challenge["WWW-Authenticate"] = challenge["WWW-Authenticate"].replace(
            "https://vault.azure.net", ours
        )
        with pytest.raises(KeyWrapError, match="does not take our token"):
            wrapper.wrap(SECRET, CONTEXT)
        assert {(f"{ours}/.default",)} == set(credential.asked)


def test_a_token_does_not_follow_a_redirect(vault: KeyVault, tmp_path: Path):
    """
    Who answers at the vault's address cannot send us, and our token, elsewhere.
    """
    vault.create()
    credential = vault.grant(*USER)

    def respond(request: Request) -> Response:
        if request.authorization is None:
            return Response(401, b"", dict(CHALLENGE))
        return Response(307, b"", {"Location": f"{vault.url}{request.path}"})

    with serving(tmp_path, respond) as server:
        wrapper = AzureKeyVaultWrapper(
            f"https://localhost:{server.port}/keys/ring", credential=credential
        )
        with pytest.raises(KeyWrapError, match="307"):
            wrapper.wrap(SECRET, CONTEXT)
    assert [] == vault.requests
    wrapper_of(vault, credential).wrap(SECRET, CONTEXT)
    assert [] != vault.requests


@contextmanager
def serving(
    folder: Path, respond: Callable[[Request], Response]
) -> Iterator[TlsServer]:
    """
    Run a server beside the vault of a folder, with the vault's certificate.
    """
    server = TlsServer(folder, respond)
    server.start()
    try:
        yield server
    finally:
        server.stop()
