"""
What a ring in a blob looks like, beside foreign writers too, and when answers get lost.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError
from azure.storage.blob import BlobClient

from kagimori.addresses import Address
from kagimori.errors import (
    ConfigError,
    ConflictError,
    InsecureConfigError,
    RingMalformedError,
    RingUnreadableError,
    StoreError,
)
from kagimori.keys.protection import xml
from kagimori.keys.store import Element, Snapshot
from kagimori.ring_stores.azure_blob import AzureBlobStore, open_store
from kagimori.ring_stores.azure_blob_place import BlobPlace
from kagimori.testing.conformance.key_store import ONE, STATE, TWO, meaning, of
from kagimori.testing.conformance.key_store_worker import change, named
from tests.ring_stores.azure_places import address, noted, opened
from tests.ring_stores.lossy import Wire
from tests.servers.azurite import Azurite
from tests.servers.processes import free_port


@pytest.fixture
def place(azurite: Azurite, tmp_path: Path) -> Path:
    """
    A folder that notes where its ring lies: in a container that is not there yet.
    """
    noted(tmp_path, azurite)
    return tmp_path


@pytest.fixture
def blob(azurite: Azurite, place: Path) -> BlobClient:
    """
    A client of the blob of a ring of two elements and our state.
    """
    store = opened(place)
    store.commit([ONE, TWO, STATE], (), None)
    container = urlsplit(store.name).path.split("/")[2]
    return azurite.service.get_blob_client(container, "keys.xml")


def append_as_dotnet(blob: BlobClient, element: Element) -> None:
    """
    Add an element as .NET does: read, and write back on condition of the ETag.
    """
    read = blob.download_blob()
    text = read.readall().decode()
    write_as_dotnet(blob, text, read.properties.etag, element)


def write_as_dotnet(blob: BlobClient, text: str, etag: str, element: Element) -> None:
    blob.upload_blob(
        text.replace("</repository>", element.xml + "</repository>").encode(),
        overwrite=True,
        etag=etag,
        match_condition=MatchConditions.IfNotModified,
    )


# --- layout --------------------------------------------------------------------------------


def test_the_blob_lies_as_dotnet_lays_it(blob: BlobClient):
    """
    One line with byte order mark and declaration, under <repository>, of .NET's content type.
    """
    read = blob.download_blob()
    text = read.readall().decode()
    head = '\ufeff<?xml version="1.0" encoding="utf-8"?><repository><revocation version="1">'

    assert text.startswith(head)
    assert "\n" not in text
    assert ["revocation", "revocation", "{urn:kagimori:ring:1}state"] == [
        root.tag for root in xml.children(xml.parse(text))
    ]
    assert (
        "application/xml; charset=utf-8"
        == read.properties.content_settings.content_type
    )


def test_our_root_elements_are_kept(blob: BlobClient, place: Path):
    """
    What is ours beside the keys stays, through commits and foreign writers.
    """
    recovery = '<recovery key="x" xmlns="urn:kagimori:ring:1"><y /></recovery>'
    append_as_dotnet(blob, Element("", recovery))
    change(opened(place), (named("three"),), (ONE.name,))

    text = blob.download_blob().readall().decode()
    assert recovery in text
    assert "<application>shop</application>" in text


def test_any_root_and_an_empty_blob_are_read(blob: BlobClient, place: Path):
    """
    The root's name is not looked at; a blob of no bytes is an empty ring that can be written.
    """
    blob.upload_blob(f"<any>{ONE.xml}\n {TWO.xml}</any>".encode(), overwrite=True)
    assert of(ONE, TWO) == meaning(opened(place).load())

    blob.upload_blob(b"", overwrite=True)
    store = opened(place)
    empty = store.load()
    assert () == empty.elements
    with pytest.raises(ConflictError):
        store.commit([ONE], (), None)
    store.commit([ONE], (), empty.version)
    assert of(ONE) == meaning(opened(place).load())


def test_rings_lie_side_by_side_in_one_container(blob: BlobClient, place: Path):
    """
    Another blob is another ring.
    """
    other = address(place).replace("/keys.xml", "/team/other.xml")
    store = open_store(Address.parse(other), read_only=False)
    assert Snapshot((), None) == store.load()
    store.commit([named("other")], (), None)

    assert of(named("other")) == meaning(store.load())
    assert of(ONE, TWO) == meaning(opened(place).load())


@pytest.mark.parametrize("text", ["<repository>", "nothing", "<!DOCTYPE b><a></a>"])
def test_a_broken_blob_makes_the_ring_unreadable(
    blob: BlobClient, place: Path, text: str
):
    """
    A blob that is not well-formed is an error, never an empty ring; mended, it is read.
    """
    good = blob.download_blob().readall()
    blob.upload_blob(text.encode(), overwrite=True)
    store = opened(place)

    with pytest.raises(RingMalformedError):
        store.load()
    blob.upload_blob(good, overwrite=True)
    assert of(ONE, TWO) == meaning(store.load())


def test_a_blob_beyond_the_limit_is_refused(blob: BlobClient, place: Path):
    """
    K2: more than 10 MB is no ring, and is not written either; exactly 10 MB is read.
    """
    most = 10 * 1024 * 1024
    filled = f"<a>{ONE.xml}<!--{{}}--></a>"
    room = most - len(filled.format("").encode())
    blob.upload_blob(filled.format("x" * room).encode(), overwrite=True)
    store = opened(place)
    snapshot = store.load()
    assert of(ONE) == meaning(snapshot)

    halves = [Element("", f"<{name}>{'y' * (most // 2)}</{name}>") for name in "xz"]
    with pytest.raises(StoreError, match="larger than"):
        store.commit(halves, (), snapshot.version)
    blob.upload_blob(filled.format("x" * (room + 1)).encode(), overwrite=True)
    with pytest.raises(RingUnreadableError, match="larger than"):
        store.load()


# --- foreign writers -----------------------------------------------------------------------


def test_what_dotnet_appends_is_kept(blob: BlobClient, place: Path):
    """
    An element that a foreign writer added is there at once, and after our next commit.
    """
    store = opened(place)
    stale = store.load().version
    append_as_dotnet(blob, named("three"))
    with pytest.raises(ConflictError):
        store.commit([named("four")], (), stale)
    assert of(ONE, TWO, named("three")) == meaning(store.load())

    change(store, (named("four"),), (ONE.name,))
    assert of(TWO, named("three"), named("four")) == meaning(opened(place).load())


def test_a_foreign_writer_that_read_before_us_takes_nothing_back(
    blob: BlobClient, place: Path
):
    """
    .NET writes on condition of what it read: our commit in between makes it read again.
    """
    read = blob.download_blob()
    text = read.readall().decode()
    change(opened(place), (named("ours"),), (ONE.name,))

    with pytest.raises(ResourceModifiedError):
        write_as_dotnet(blob, text, read.properties.etag, named("theirs"))
    append_as_dotnet(blob, named("theirs"))
    expected = of(TWO, named("ours"), named("theirs"))
    assert expected == meaning(opened(place).load())


def test_while_nothing_changes_only_that_is_asked(blob: BlobClient, place: Path):
    """
    A second load of the same version takes what the first one read.
    """
    store = opened(place)
    first = store.load()
    assert first.elements is store.load().elements

    append_as_dotnet(blob, named("three"))
    assert of(ONE, TWO, named("three")) == meaning(store.load())
    blob.delete_blob()
    assert Snapshot((), None) == store.load()
    assert store.probe() is None


# --- answers that get lost -----------------------------------------------------------------


@pytest.fixture
def wire(azurite: Azurite) -> Iterator[Wire]:
    """
    A wire to Azurite that loses what it is told to.
    """
    port = urlsplit(azurite.endpoint).port
    assert port is not None
    with Wire.running(port) as wire:
        yield wire


def over(wire: Wire, place: Path, read_seconds: float = 5.0) -> AzureBlobStore:
    """
    Open the ring of a folder over a wire.
    """
    text = address(place).replace(f":{wire.target}/", f":{wire.port}/")
    return AzureBlobStore(BlobPlace.of(Address.parse(text)), read_seconds=read_seconds)


@pytest.mark.parametrize("lost", ["answer", "request"])
def test_k8_a_write_whose_answer_is_lost_is_looked_up(
    blob: BlobClient, place: Path, wire: Wire, lost: str
):
    """
    K8: whether the request or its answer was lost, the change is in the ring exactly once.
    """
    store = over(wire, place)
    version = store.load().version
    wire.losing(lost)
    after = store.commit([named("three"), STATE], [ONE.name], version)

    assert 1 == wire.lost
    assert of(TWO, named("three")) == meaning(after)
    assert after == opened(place).load()
    assert 3 == len(after.elements)


@pytest.mark.parametrize("lost", ["answer", "request"])
def test_k4_the_first_write_of_a_ring_may_lose_its_answer(
    azurite: Azurite, tmp_path: Path, wire: Wire, lost: str
):
    """
    K4: who made the ring and does not hear of it finds its own key there, and has won.
    """
    noted(tmp_path, azurite)
    opened(tmp_path).commit([ONE], (), None)
    text = address(tmp_path).replace("/keys.xml", "/second.xml")
    text = text.replace(f":{wire.target}/", f":{wire.port}/")
    store = open_store(Address.parse(text), read_only=False)
    wire.losing(lost)

    after = store.commit([TWO], (), None)
    assert of(TWO) == meaning(after) == meaning(store.load())
    with pytest.raises(ConflictError):
        store.commit([ONE], (), None)


def test_a_write_that_lost_against_another_is_a_conflict(
    blob: BlobClient, place: Path, wire: Wire
):
    """
    Where another writer came in while the request was lost, that is what is said.
    """
    store = over(wire, place)
    version = store.load().version
    change(opened(place), (named("theirs"),), ())
    wire.losing("request")

    with pytest.raises(ConflictError):
        store.commit([named("ours")], (), version)
    assert of(ONE, TWO, named("theirs")) == meaning(store.load())


def test_a_write_that_is_never_answered_is_transient(
    blob: BlobClient, place: Path, wire: Wire
):
    """
    Two tries, then it is a passing error; nothing was written, and later it works.
    """
    store = over(wire, place)
    version = store.load().version
    wire.losing("request", 99)

    with pytest.raises(StoreError, match="does not answer") as caught:
        store.commit([named("three")], (), version)
    assert caught.value.transient
    assert 2 == wire.lost
    wire.times = 0
    assert of(ONE, TWO) == meaning(store.load())
    store.commit([named("three")], (), version)


def test_a_read_that_is_lost_is_made_once_more(
    blob: BlobClient, place: Path, wire: Wire
):
    """
    Reading takes two tries, probing too; a store that stays silent is transient.
    """
    store = over(wire, place)
    wire.losing("answer", 1, b"GET")
    assert of(ONE, TWO) == meaning(store.load())
    wire.losing("answer", 1, b"HEAD")
    assert store.probe() is not None
    wire.losing("end", 1, b"GET")
    assert of(ONE, TWO) == meaning(over(wire, place).load())

    for verb, call in ((b"GET", store.load), (b"HEAD", store.probe)):
        wire.losing("request", 2, verb)
        with pytest.raises(StoreError, match="does not answer") as caught:
            call()
        assert caught.value.transient
    assert of(ONE, TWO) == meaning(store.load())


def test_a_store_that_hangs_is_waited_for_only_so_long(
    blob: BlobClient, place: Path, wire: Wire
):
    """
    Where a connection stands and nobody answers, the read timeout ends it, twice at most.
    """
    store = over(wire, place, read_seconds=0.3)
    wire.losing("both", 2, b"GET")

    began = time.monotonic()
    with pytest.raises(StoreError, match="does not answer"):
        store.load()
    assert time.monotonic() - began < 5
    assert of(ONE, TWO) == meaning(store.load())


def test_a_store_that_is_down_is_transient_at_the_start_and_later(
    blob: BlobClient, place: Path, wire: Wire
):
    """
    Opening asks nobody; then each call says that the store does not answer.
    """
    text = address(place).replace(f":{wire.target}/", f":{free_port()}/")
    store = open_store(Address.parse(text), read_only=False)
    for call in (store.load, store.probe, lambda: store.commit([ONE], (), None)):
        with pytest.raises(StoreError, match="does not answer") as caught:
            call()
        assert caught.value.transient
        assert caught.value.hint

    store = over(wire, place)
    assert of(ONE, TWO) == meaning(store.load())
    wire.cut()
    assert of(ONE, TWO) == meaning(store.load())


def test_a_forked_process_has_connections_of_its_own(azurite: Azurite, tmp_path: Path):
    """
    After a fork both processes go on, each over its own connection, side by side.
    """
    noted(tmp_path, azurite)
    place = BlobPlace.of(Address.parse(address(tmp_path)))
    given = AzureBlobStore.from_blob_client(place.clients(5.0).blob)
    store = AzureBlobStore(place)
    store.commit([ONE], (), None)
    assert of(ONE) == meaning(given.load())
    ours = [id(one._clients.get()) for one in (store, given)]

    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads that other tests may have left.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            good = all(of(ONE) == meaning(one.load()) for one in (store, given) * 10)
            theirs = [id(one._clients.get()) for one in (store, given)]
            os._exit(0 if good and not set(ours) & set(theirs) else 1)
        except BaseException:  # noqa: BLE001 - the child must end here
            os._exit(2)
    for one in (store, given) * 10:
        assert of(ONE) == meaning(one.load())
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("azblob://shop/rings", "https://shop.blob.core.windows.net/rings/keys.xml"),
        ("azblob://shop/rings/", "https://shop.blob.core.windows.net/rings/keys.xml"),
        (
            "azblob://shop/rings/a/b.xml",
            "https://shop.blob.core.windows.net/rings/a/b.xml",
        ),
        ("azblob://shop/rings/a%20b", "https://shop.blob.core.windows.net/rings/a%20b"),
        (
            "azblob://shop/rings?endpoint=https://shop.blob.core.usgovcloudapi.net/",
            "https://shop.blob.core.usgovcloudapi.net/rings/keys.xml",
        ),
        (
            "azblob://devstoreaccount1/rings?account-key=x&endpoint=http://127.0.0.1:1/devstoreaccount1",
            "http://127.0.0.1:1/devstoreaccount1/rings/keys.xml",
        ),
        (
            "https://shop.blob.core.windows.net/rings",
            "https://shop.blob.core.windows.net/rings/keys.xml",
        ),
        (
            "https://shop.blob.core.windows.net/rings/x.xml?sv=1&sr=b&sig=a%2Bb%3D",
            "https://shop.blob.core.windows.net/rings/x.xml",
        ),
        (
            "https://127.0.0.1:1/devstoreaccount1/rings?identity=x",
            "https://127.0.0.1:1/devstoreaccount1/rings/keys.xml",
        ),
    ],
)
def test_addresses_name_a_blob(text: str, url: str):
    """
    Both kinds of address, keys.xml where no blob is named; the name holds no signature.
    """
    store = open_store(Address.parse(text), read_only=False)

    assert url == store.name
    assert "sig" not in repr(store)


@pytest.mark.parametrize(
    "text",
    [
        "azblob://shop",
        "azblob://shop/",
        "azblob:///rings",
        "azblob://Shop_1/rings",
        "azblob://shop/Rings",
        "azblob://shop/ri--ngs",
        "azblob://u:p@shop/rings",
        "azblob://shop/rings?colour=red",
        "azblob://shop/rings?endpoint=shop.example",
        "azblob://shop/rings?endpoint=https://u:p@shop.example",
        "azblob://shop/rings?endpoint=https://shop.example?x=1",
        "azblob://shop/rings?sig=abc",
        "azblob://shop/rings?sas=a&account-key=b",
        "azblob://shop/rings?sas=a&identity=b",
        "azblob://shop/" + "r" * 64,
        "azblob://shop/rr",
        "azblob://shop/rings?endpoint=http://127.0.0.1:1/shop",
        "https://shop.blob.core.windows.net",
        "https://shop.blob.core.windows.net/rings?sv=1",
        "https://shop.blob.core.windows.net/rings?sig=1&sig=2",
        "https://shop.blob.core.windows.net/rings?sig=1&account-key=2",
        "https://shop.blob.core.windows.net/rings?timeout=1",
    ],
)
def test_addresses_that_are_none_are_refused(text: str):
    """
    Each is a ConfigError before anything is asked.
    """
    with pytest.raises(ConfigError):
        open_store(Address.parse(text), read_only=False)


def test_k11_secrets_do_not_cross_a_network_in_the_clear():
    """
    K11: over http only this machine is spoken to, whatever signs in.
    """
    for secret in ("", "&sas=sv%3D1%26sig%3Dx", "&account-key=eA%3D%3D"):
        text = f"azblob://shop/rings?endpoint=http://shop.example{secret}"
        with pytest.raises(InsecureConfigError):
            open_store(Address.parse(text), read_only=False)
    open_store(
        Address.parse("azblob://shop/rings?endpoint=https://shop.example"),
        read_only=False,
    )


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """
    A missing package is a ConfigError with the command.
    """
    where = Address.parse("azblob://shop/rings")
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(ConfigError) as caught:
        open_store(where, read_only=False)

    assert "pip install 'kagimori[azure]'" in caught.value.hint
    monkeypatch.undo()
    assert open_store(where, read_only=False).name
