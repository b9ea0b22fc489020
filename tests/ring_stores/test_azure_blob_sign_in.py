"""
Who may do what with a ring in a blob: identities, signatures, keys, rights, and their lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from azure.core.credentials import AzureSasCredential
from azure.storage.blob import BlobClient, ContainerClient

from kagimori.addresses import Address
from kagimori.errors import RingReadOnlyError, StoreError
from kagimori.keys.store import Snapshot
from kagimori.ring_stores.azure_blob import AzureBlobStore, open_store
from kagimori.testing.conformance.key_store import ONE, TWO, meaning, of
from tests.doubles.key_vault import Credential
from tests.doubles.managed_identity import ManagedIdentity
from tests.doubles.tls_server import Request, Response, TlsServer
from tests.servers.azurite import ACCOUNT, KEY, Azurite, make_certificate, new_name
from tests.wrappers.key_vaults import app_service

STORAGE = "https://storage.azure.com"
ROLE = "Storage Blob Data Contributor"


@pytest.fixture
def secure(azurite_over_tls: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """
    An Azurite that takes tokens, with its certificate trusted.
    """
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azurite_over_tls.ca))
    return azurite_over_tls


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagedIdentity]:
    with app_service(monkeypatch) as identity:
        yield identity


@pytest.fixture
def container(azurite: Azurite) -> ContainerClient:
    return azurite.container()


def store_of(
    azurite: Azurite, container: str, options: str = "", *, read_only: bool = False
) -> AzureBlobStore:
    """
    Open the blob keys.xml of a container, signed in as the options say.
    """
    text = f"azblob://{ACCOUNT}/{container}?endpoint={azurite.endpoint}{options}"
    return open_store(Address.parse(text), read_only=read_only)


def secret_file(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.write_text(text + "\n")
    return path


# --- identities ----------------------------------------------------------------------------


@pytest.mark.double
def test_the_system_assigned_identity_signs_in(
    secure: Azurite, identity: ManagedIdentity
):
    """
    Without anything said, the application's own identity is used, for Storage's resource; the
    container is made by it too.
    """
    store = store_of(secure, new_name())
    assert Snapshot((), None) == store.load()
    store.commit([ONE], (), None)

    assert of(ONE) == meaning(store.load())
    assert [(STORAGE, None)] == identity.asked


@pytest.mark.double
def test_a_user_assigned_identity_signs_in(
    secure: Azurite, identity: ManagedIdentity, monkeypatch: pytest.MonkeyPatch
):
    """
    One is named by its client id, in the address or in AZURE_CLIENT_ID.
    """
    client_id, _ = identity.assign()
    store_of(secure, new_name(), f"&identity={client_id}").commit([ONE], (), None)
    assert [(STORAGE, client_id)] == identity.asked

    monkeypatch.setenv("AZURE_CLIENT_ID", client_id)
    store_of(secure, new_name()).commit([ONE], (), None)
    assert [(STORAGE, client_id)] * 2 == identity.asked


@pytest.mark.double
def test_signing_in_that_fails_is_told_and_passes(
    secure: Azurite, identity: ManagedIdentity, monkeypatch: pytest.MonkeyPatch
):
    """
    While the platform's endpoint gives no token, that is what is said; then it goes on.
    """
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
    store = store_of(secure, new_name())
    identity.failing = True
    with pytest.raises(StoreError, match="Signing in to Azure") as caught:
        store.load()
    assert caught.value.transient
    assert "managed identity" in caught.value.hint

    identity.failing = False
    assert Snapshot((), None) == store.load()


@pytest.mark.double
def test_a_credential_or_a_client_may_be_given(secure: Azurite):
    """
    A TokenCredential with an https address, and a BlobClient of whatever kind.
    """
    url = f"{secure.endpoint}/{new_name()}"
    credential = Credential("somebody")
    AzureBlobStore.from_credential(url, credential).commit([ONE], (), None)
    assert [(f"{STORAGE}/.default",)] == credential.asked[:1]

    container = urlsplit(url).path.split("/")[-1]
    sas = secure.container_sas(container, "racwl")
    clients = (
        BlobClient.from_blob_url(f"{url}/keys.xml", credential=credential),
        BlobClient.from_blob_url(f"{url}/keys.xml?{sas}"),
        BlobClient.from_blob_url(f"{url}/keys.xml", credential=AzureSasCredential(sas)),
        secure.service.get_blob_client(container, "keys.xml"),
    )
    for client in clients:
        store = AzureBlobStore.from_blob_client(client)
        assert f"{url}/keys.xml" == store.name
        assert of(ONE) == meaning(store.load())
        reader = AzureBlobStore.from_blob_client(client, read_only=True)
        with pytest.raises(RingReadOnlyError):
            reader.commit([TWO], (), reader.load().version)
        store.commit([ONE], (), store.load().version)
        assert all(finding.ok for finding in store.examine())


def test_a_client_makes_its_container_too(azurite: Azurite):
    """
    The container of a given client is made where it is missing, signed in as the client is.
    """
    container = new_name()
    client = azurite.service.get_blob_client(container, "ring.xml")
    AzureBlobStore.from_blob_client(client).commit([ONE], (), None)

    properties = azurite.service.get_container_client(container)
    assert properties.get_container_properties().public_access is None


# --- signatures and keys -------------------------------------------------------------------


def test_a_signature_signs_in(azurite: Azurite, container: ContainerClient, tmp_path):
    """
    One for the blob alone suffices, from a file, from a variable, or in an https address.
    """
    name = container.container_name
    sas = azurite.blob_sas(name, "racw")
    place = secret_file(tmp_path, f"?{sas}")
    store = store_of(azurite, name, f"&sas-file={place}")
    assert Snapshot((), None) == store.load()
    store.commit([ONE], (), None)

    assert of(ONE) == meaning(store.load())
    for text in (store.name, repr(store), repr(store._place)):
        assert "sig=" not in text


def test_a_signature_stands_in_an_https_address(secure: Azurite):
    """
    As the portal shows it; a plus and a slash in it survive.
    """
    name = secure.container().container_name
    for permission in ("racw", "rcw", "rw", "raw", "racwd"):
        sas = secure.blob_sas(name, permission)
        text = f"{secure.endpoint}/{name}?{sas}"
        store = open_store(Address.parse(text), read_only=False)
        store.commit([ONE], (), store.load().version)
        assert of(ONE) == meaning(store.load())


def test_a_reader_needs_no_more_than_reading(
    azurite: Azurite, container: ContainerClient, tmp_path: Path
):
    """
    A read-only store reads with a signature for reading; a writing one is told what it lacks.
    """
    name = container.container_name
    store_of(azurite, name, f"&account-key-file={secret_file(tmp_path, KEY)}").commit(
        [ONE], (), None
    )
    place = secret_file(tmp_path, azurite.blob_sas(name, "r"))
    reader = store_of(azurite, name, f"&sas-file={place}", read_only=True)
    assert of(ONE) == meaning(reader.load())
    assert reader.probe() == reader.load().version

    writer = store_of(azurite, name, f"&sas-file={place}")
    with pytest.raises(StoreError, match="writing is not allowed") as caught:
        writer.commit([TWO], (), writer.load().version)
    assert ROLE in caught.value.hint
    assert name in caught.value.hint
    assert not caught.value.transient
    assert of(ONE) == meaning(reader.load())


def test_a_container_that_cannot_be_made_is_named_with_the_role(
    azurite: Azurite, tmp_path: Path
):
    """
    Without the right to make the container, the error names it and the role; made, all is well.
    """
    name = new_name()
    place = secret_file(tmp_path, azurite.blob_sas(name, "racw"))
    store = store_of(azurite, name, f"&sas-file={place}")
    assert Snapshot((), None) == store.load()

    with pytest.raises(StoreError, match=f"no container {name}") as caught:
        store.commit([ONE], (), None)
    assert ROLE in caught.value.hint
    assert f"Make the container {name}, private" in caught.value.hint
    azurite.service.create_container(name)
    store.commit([ONE], (), None)
    assert of(ONE) == meaning(store.load())


@pytest.mark.parametrize(
    ("kind", "secret", "hint"),
    [
        ("sas", "sv=2021-12-02&sr=b&sp=rw&se=2020-01-01&sig=c2VjcmV0", "signature"),
        ("account-key", "c2VjcmV0LW9mLW1pbmU=", "key"),
    ],
)
def test_k9_credentials_that_are_not_taken_are_never_shown(
    azurite: Azurite,
    container: ContainerClient,
    tmp_path: Path,
    kind: str,
    secret: str,
    hint: str,
):
    """
    K9: a wrong signature and a wrong key are told of by kind, and stand in no text.
    """
    options = f"&{kind}-file={secret_file(tmp_path, secret)}"
    store = store_of(azurite, container.container_name, options)

    with pytest.raises(StoreError) as caught:
        store.load()
    assert hint in caught.value.hint
    assert not caught.value.transient
    shown = f"{caught.value!r}{caught.value!s}{caught.value.detail}{store!r}"
    assert "c2VjcmV0" not in shown
    assert caught.value.__cause__ is None


def test_k9_an_address_that_does_not_answer_shows_no_signature(tmp_path: Path):
    """
    K9: what the client says of a broken connection quotes the whole address; we do not.
    """
    sas = "sv=2021-12-02&sr=b&sp=rw&se=2039-01-01&sig=c2VjcmV0"
    text = f"https://127.0.0.1:1/{ACCOUNT}/rings/keys.xml?{sas}"
    store = open_store(Address.parse(text), read_only=False)

    with pytest.raises(StoreError, match="does not answer") as caught:
        store.load()
    chain = [caught.value, caught.value.__cause__]
    assert not any("c2VjcmV0" in f"{error!r}{error!s}" for error in chain)
    assert caught.value.__suppress_context__


# --- whatever the service may say ----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "headers", "said", "hinted", "seconds"),
    [
        (429, "TooManyRequests", {"Retry-After": "9"}, "too often", "", 9.0),
        (503, "ServerBusy", {"Retry-After": "3"}, "too often", "", 3.0),
        (503, "ServerBusy", {"x-ms-retry-after-ms": "250"}, "too often", "", 0.25),
        (500, "InternalError", {}, "fails at the moment", "", None),
        (403, "AuthorizationPermissionMismatch", {}, "is not allowed", ROLE, None),
        (403, "AuthorizationFailure", {}, "is not allowed", "Networking", None),
        (403, "AuthenticationFailed", {}, "our credentials", "signature", None),
        (401, "NoAuthenticationInformation", {}, "our credentials", "signature", None),
        (404, "", {}, "no container of Azure", "blob endpoint", None),
        (404, "ResourceNotFound", {}, "no container of Azure", "blob endpoint", None),
        (409, "ContainerBeingDeleted", {}, "being deleted", "another name", None),
        (409, "BlobArchived", {}, "cannot be written", "archived", None),
        (412, "LeaseIdMissing", {}, "locked by a lease", "Break the lease", None),
        (418, "", {}, "failed", "", None),
    ],
)
def test_each_refusal_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    headers: dict[str, str],
    said: str,
    hinted: str,
    seconds: float | None,
):
    """
    Azure's codes become our error, transient where it passes, with its Retry-After; none of them
    is an empty ring, and each is asked once.
    """
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(make_certificate(tmp_path)))
    asked: list[str] = []

    def respond(request: Request) -> Response:
        asked.append(request.method)
        named = {"x-ms-error-code": code} if code else {}
        return Response(status, b"", headers | named)

    server = TlsServer(tmp_path, respond)
    server.start()
    try:
        text = f"https://localhost:{server.port}/{ACCOUNT}/rings?sv=1&sig=x"
        store = open_store(Address.parse(text), read_only=False)
        for call in (store.load, store.probe, lambda: store.commit([ONE], (), None)):
            with pytest.raises(StoreError, match=said) as caught:
                call()
            assert hinted in caught.value.hint
            assert caught.value.transient is (
                status in {429, 500, 503} or "Being" in code
            )
            assert seconds == caught.value.retry_after
        # Not even a client with retries of its own sleeps.
        client = BlobClient.from_blob_url(f"{store.name}?sv=1&sig=x")
        with pytest.raises(StoreError, match=said):
            AzureBlobStore.from_blob_client(client).load()
    finally:
        server.stop()
    assert ["GET", "HEAD", "PUT", "GET"] == asked


@pytest.mark.double
def test_an_identity_without_the_role_is_named(
    tmp_path: Path, identity: ManagedIdentity, monkeypatch: pytest.MonkeyPatch
):
    """
    Whoever signs in by an identity is told whom to give which role; a reader needs less.
    """
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(make_certificate(tmp_path)))
    client_id, _ = identity.assign()
    status, code = 403, "AuthorizationPermissionMismatch"

    def respond(request: Request) -> Response:
        return Response(status, b"", {"x-ms-error-code": code, "x-ms-version": "x"})

    server = TlsServer(tmp_path, respond)
    server.start()
    try:
        text = f"https://localhost:{server.port}/{ACCOUNT}/rings"
        for options, read_only, said in (
            ("", False, f"Give the identity of this application the role {ROLE} on"),
            ("", True, "the role Storage Blob Data Reader on the container rings"),
            (f"?identity={client_id}", False, f"the managed identity {client_id} of"),
        ):
            where = Address.parse(text + options)
            with pytest.raises(StoreError, match="is not allowed") as caught:
                open_store(where, read_only=read_only).load()
            assert said in caught.value.hint
        status, code = 401, "InvalidAuthenticationInfo"
        with pytest.raises(StoreError, match="our credentials") as caught:
            open_store(Address.parse(text), read_only=False).load()
        assert "tenant" in caught.value.hint
    finally:
        server.stop()


# --- the doctor's questions ----------------------------------------------------------------


def findings_of(store: AzureBlobStore) -> dict[str, bool]:
    return {finding.right: finding.ok for finding in store.examine()}


def test_examine_tries_each_right_and_leaves_nothing(
    azurite: Azurite, container: ContainerClient, tmp_path: Path
):
    """
    Reading, writing and anonymous reading are tried by themselves; neither container nor blob is
    made or changed by that.
    """
    everything = f"&account-key-file={secret_file(tmp_path, KEY)}"
    good = {"read": True, "write if unchanged": True, "anonymous read": True}
    store = store_of(azurite, container.container_name, everything)
    assert good == findings_of(store)
    assert [] == list(container.list_blobs())

    before = store.commit([ONE], (), None)
    assert good == findings_of(store)
    assert before == store.load()
    absent = store_of(azurite, new_name(), everything)
    assert good | {"write if unchanged": False} == findings_of(absent)
    container = azurite.service.get_container_client(absent._place.container)
    assert not container.exists()


def test_examine_names_the_role_that_is_missing(
    azurite: Azurite, container: ContainerClient, tmp_path: Path
):
    """
    With reading alone the one finding that fails names the role; with neither, both do.
    """
    name = container.container_name
    for permission, expected in (("r", [True, False]), ("d", [False, False])):
        place = secret_file(tmp_path, azurite.blob_sas(name, permission))
        findings = store_of(azurite, name, f"&sas-file={place}").examine()
        assert expected == [finding.ok for finding in findings[:2]]
        for finding in findings[:2]:
            assert finding.ok or (ROLE in finding.remedy and name in finding.remedy)


def test_examine_of_a_reader_asks_for_reading_alone(
    azurite: Azurite, container: ContainerClient, tmp_path: Path
):
    """
    A read-only store needs no right to write, and does not answer for a service that is silent.
    """
    name = container.container_name
    place = secret_file(tmp_path, azurite.blob_sas(name, "r"))
    reader = store_of(azurite, name, f"&sas-file={place}", read_only=True)
    assert {"read": True, "anonymous read": True} == findings_of(reader)

    text = f"https://127.0.0.1:1/{ACCOUNT}/rings?sv=1&sig=x"
    silent = open_store(Address.parse(text), read_only=False).examine()
    assert [False] * 3 == [finding.ok for finding in silent]
    assert all("does not answer" in finding.text for finding in silent)


@pytest.mark.parametrize("level", ["container", "blob"])
def test_a_container_that_anybody_reads_is_warned_of(
    azurite: Azurite, tmp_path: Path, level: str
):
    """
    K11: both levels of public access are found, also before there is a blob.
    """
    name = azurite.container(public=level).container_name
    store = store_of(azurite, name, f"&account-key-file={secret_file(tmp_path, KEY)}")

    for _ in range(2):
        *_, anonymous = store.examine()
        assert not anonymous.ok
        assert name in anonymous.text
        assert "Private" in anonymous.remedy
        store.commit([ONE], (), store.load().version)
    place = secret_file(tmp_path, azurite.blob_sas(name, "r"))
    *_, anonymous = store_of(azurite, name, f"&sas-file={place}").examine()
    assert not anonymous.ok
