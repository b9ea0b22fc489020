"""
Opening a ring by addresses, arguments and environment.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import kagimori
from kagimori import open_ring, opening, secret_sources
from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    KeyWrapError,
    ProtectionError,
    RingMissingError,
    StoreError,
)
from kagimori.opening import has_literal_secret, open_store, open_wrapper, secret_files
from kagimori.ring_stores.document import DocumentStore
from kagimori.ring_stores.file import FolderStore
from kagimori.testing.clock import FixedClock
from kagimori.wrappers.plaintext import PlaintextWrapper
from tests.keys.protection.world import Heard
from tests.wrappers.certificates import PASSWORD, pem_certificate, pem_key, pfx

ENCODED = "p%26ss%20w+rd"


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in (opening.LOCATION, opening.APPLICATION, opening.WRAPPER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(secret_sources, "_warned", set())


def secret(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


# --- arguments and environment -------------------------------------------------------------


def test_everything_may_come_from_the_environment(tmp_path, monkeypatch):
    """
    A ring named by its three variables alone opens by `open_ring()`.
    """
    monkeypatch.setenv("PASS", "correct horse")
    monkeypatch.setenv("KAGIMORI_RING", f"file://{tmp_path}/ring")
    monkeypatch.setenv("KAGIMORI_RING_APPLICATION", "shop")
    monkeypatch.setenv("KAGIMORI_RING_WRAPPER", "passphrase:env:PASS")
    sealed = open_ring().protector("a").protect(b"x")

    named = open_ring(
        f"file://{tmp_path}/ring", application="shop", wrapper="passphrase:env:PASS"
    )
    assert b"x" == named.protector("a").unprotect(sealed).payload
    assert str(tmp_path / "ring") == named.location_name
    assert "passphrase (env:PASS)" == named.wrapper_name


def test_an_argument_outweighs_its_variable(tmp_path, monkeypatch):
    """
    Whatever is given is taken; only what is left out comes from the environment.
    """
    monkeypatch.setenv("KAGIMORI_RING", "file:///nowhere/at/all")
    monkeypatch.setenv("KAGIMORI_RING_APPLICATION", "none")
    monkeypatch.setenv("KAGIMORI_RING_WRAPPER", "nonsense:")
    ring = open_ring(f"file://{tmp_path}/r", application="shop", wrapper="plaintext:")
    sealed = ring.protector("a").protect(b"x")

    same = open_ring(f"file://{tmp_path}/r", application="shop", wrapper="plaintext:")
    assert b"x" == same.protector("a").unprotect(sealed).payload
    bare = open_ring(f"file://{tmp_path}/r", wrapper="plaintext:")
    with pytest.raises(ProtectionError):
        bare.protector("a").unprotect(sealed)


def test_none_means_no_discriminator(tmp_path, monkeypatch):
    """
    As an argument, and as the word `none` in the variable.
    """
    location = f"file://{tmp_path}/ring"
    ring = open_ring(location, application=None, wrapper="plaintext:")
    monkeypatch.setenv("KAGIMORI_RING_APPLICATION", "none")
    same = open_ring(location, wrapper="plaintext:")

    sealed = ring.protector("a").protect(b"x")
    assert b"x" == same.protector("a").unprotect(sealed).payload


@pytest.mark.parametrize("value", [None, ""])
def test_what_is_named_nowhere_is_an_error(tmp_path, monkeypatch, value):
    """
    Neither location nor application has a default; an empty variable names nothing.
    """
    for name in ("KAGIMORI_RING", "KAGIMORI_RING_APPLICATION"):
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="KAGIMORI_RING_APPLICATION"):
        open_ring(f"file://{tmp_path}/ring", wrapper="plaintext:")
    with pytest.raises(ConfigError, match="KAGIMORI_RING\\."):
        open_ring(application="shop", wrapper="plaintext:")
    with pytest.raises(ConfigError, match="not empty"):
        open_ring(f"file://{tmp_path}/ring", application="", wrapper="plaintext:")

    assert [] == list(tmp_path.iterdir())


def test_objects_are_accepted(tmp_path):
    """
    A store and a wrapper of one's own stand where addresses do; a clock and an ear too.
    """
    clock, heard = FixedClock(), Heard()
    ring = open_ring(
        FolderStore(tmp_path / "ring"),
        application="shop",
        wrapper=PlaintextWrapper(),
        clock=clock,
        events=heard,
    )

    assert clock.now() == ring.keys()[0].timeline.created
    assert "key.published" in heard.names()


@pytest.mark.parametrize("name", ["AES_256_CBC_HMACSHA256", "AES_128_GCM"])
def test_the_algorithm_of_new_keys_can_be_chosen(tmp_path, name):
    """
    By name; a name that is not known is refused with those that are.
    """
    location = f"file://{tmp_path}/ring"
    ring = open_ring(location, application="a", wrapper="plaintext:", algorithm=name)
    assert name == ring.keys()[0].algorithm

    with pytest.raises(ConfigError, match="AES_256_GCM"):
        open_ring(location, application="a", wrapper="plaintext:", algorithm="ROT13")


# --- locations -----------------------------------------------------------------------------


def test_both_layouts_are_made_when_missing(tmp_path):
    """
    A folder, or a document with its folder; special characters are percent-encoded.
    """
    for location, path in (
        (f"file://{tmp_path}/a%20b/ring", tmp_path / "a b" / "ring"),
        (
            f"file://localhost{tmp_path}/c/ring.xml?layout=document",
            tmp_path / "c/ring.xml",
        ),
        (f"file:{tmp_path}/d?layout=folder", tmp_path / "d"),
        (f"file://{tmp_path}/e+f", tmp_path / "e+f"),
    ):
        ring = open_ring(location, application="shop", wrapper="plaintext:")
        assert path.exists()
        assert str(path) == ring.location_name
    assert isinstance(open_store("file:///x?layout=document"), DocumentStore)
    assert isinstance(open_store("file:///x"), FolderStore)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "ring",
        "/ring",
        "file:ring",
        "file://host/ring",
        "file:///ring#here",
        "file:///ring?layout=tree",
        "file:///ring?colour=red",
        "file:///ring%00",
        "ftp://host/ring",
        "gopher://host",
    ],
)
def test_a_malformed_location_is_explained(location):
    """
    Other schemes, relative paths, hosts, unknown options: an error with a hint, no traceback.
    """
    with pytest.raises(ConfigError):
        open_ring(location, application="shop", wrapper="plaintext:")


@pytest.mark.parametrize("options", [{"read_only": True}, {"create": False}])
def test_a_missing_ring_is_not_made_where_none_must_be(tmp_path, options):
    """
    K5: the error names the place, and nothing is made there.
    """
    with pytest.raises(RingMissingError, match=str(tmp_path)):
        open_ring(
            f"file://{tmp_path}/ring", application="a", wrapper="plaintext:", **options
        )
    assert [] == list(tmp_path.iterdir())


def test_a_read_only_ring_protects(tmp_path):
    """
    With the current key, from a folder in which nothing is written.
    """
    location = f"file://{tmp_path}/ring"
    writer = open_ring(location, application="shop", wrapper="plaintext:")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ring").iterdir()}
    reader = open_ring(
        location, application="shop", wrapper="plaintext:", read_only=True
    )

    sealed = reader.protector("a").protect(b"x")
    assert b"x" == writer.protector("a").unprotect(sealed).payload
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "ring").iterdir()}
    assert before == after


# --- wrappers ------------------------------------------------------------------------------


def test_a_new_ring_without_a_wrapper_is_refused(tmp_path):
    """
    With what to name; an existing clear ring opens, with a warning, and gets no new key.
    """
    location = f"file://{tmp_path}/ring"
    with pytest.raises(InsecureConfigError) as caught:
        open_ring(location, application="shop")
    assert "KAGIMORI_RING_WRAPPER" in caught.value.hint
    assert [] == list(tmp_path.iterdir())

    open_ring(location, application="shop", wrapper="plaintext:")
    heard = Heard()
    ring = open_ring(location, application="shop", events=heard)
    assert ring.is_ready
    with pytest.raises(InsecureConfigError):
        ring.rotate(immediate=True)


def test_a_clear_ring_is_warned_of_once(tmp_path, caplog):
    """
    Who names no ear reads it in the log, once for each ring and process.
    """
    location = f"file://{tmp_path}/ring"
    with caplog.at_level(logging.WARNING, "kagimori"):
        for _ in range(3):
            open_ring(location, application="shop", wrapper="plaintext:")

    assert 1 == len([r for r in caplog.records if "in the clear" in r.getMessage()])


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_passphrase_from_a_file(tmp_path, monkeypatch, end):
    """
    The last line break is not part of it; the same passphrase from a variable opens.
    """
    path = secret(tmp_path / "pass phrase", b"correct horse" + end)
    location = f"file://{tmp_path}/ring"
    wrapper = f"passphrase:file:{str(path).replace(' ', '%20')}"
    sealed = (
        open_ring(location, application="a", wrapper=wrapper)
        .protector("a")
        .protect(b"x")
    )
    monkeypatch.setenv("PASS", "correct horse")

    same = open_ring(location, application="a", wrapper="passphrase:env:PASS")
    assert b"x" == same.protector("a").unprotect(sealed).payload
    monkeypatch.setenv("PASS", "wrong")
    with pytest.raises(KeyWrapError) as caught:
        open_ring(location, application="a", wrapper="passphrase:env:PASS")
    assert "env:PASS" in str(caught.value)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        f"password={ENCODED}",
        "password-env=PFX_PASSWORD",
        "password-file={}/password",
    ],
)
def test_a_certificates_password_in_three_ways(tmp_path, monkeypatch, options):
    """
    Literal (percent-encoded, a plus being a plus), from a variable, from a file.
    """
    secret(tmp_path / "ring.pfx", pfx("ring"))
    secret(tmp_path / "password", PASSWORD + b"\n")
    monkeypatch.setenv("PFX_PASSWORD", PASSWORD.decode())
    wrapper = f"certificate:{tmp_path}/ring.pfx?{options.format(tmp_path)}"
    location = f"file://{tmp_path}/ring"
    sealed = (
        open_ring(location, application="a", wrapper=wrapper)
        .protector("a")
        .protect(b"x")
    )

    ring = open_ring(location, application="a", wrapper=wrapper)
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    assert "certificate" in ring.wrapper_name
    assert not ring.is_clear


def test_certificates_in_pem_and_renewed_ones(tmp_path):
    """
    Certificate and key in one file or in two; an old one is named beside, for reading.
    """
    both = secret(tmp_path / "old.pem", pem_certificate("ring") + pem_key("ring"))
    apart = secret(tmp_path / "new.pem", pem_certificate("other"))
    key = secret(tmp_path / "new.key", pem_key("other"))
    location = f"file://{tmp_path}/ring"
    old = open_ring(location, application="a", wrapper=f"certificate:{both}")
    sealed = old.protector("a").protect(b"x")

    new = f"certificate:{apart}?key={key}"
    with pytest.raises(KeyWrapError):
        open_ring(location, application="a", wrapper=new)
    ring = open_ring(location, application="a", wrapper=f"{new}&also={both}")
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    ring.rotate(immediate=True)
    assert 2 == len(open_ring(location, application="a", wrapper=new).keys())


@pytest.mark.parametrize(
    "wrapper",
    [
        "",
        "nonsense",
        "nonsense:x",
        "plaintext",
        "plaintext:x",
        "passphrase:",
        "passphrase:secret",
        "passphrase:env:",
        "passphrase:env:NOT_SET",
        "passphrase:file:",
        "passphrase:file:relative",
        "passphrase:file:/not/there",
        "certificate:",
        "certificate:relative.pfx",
        "certificate:/not/there.pfx",
        "certificate:/x.pfx?passwort=x",
        "certificate:/x.pfx?password=x&password-env=Y",
    ],
)
def test_a_malformed_wrapper_is_explained(tmp_path, wrapper):
    """
    Each is a `ConfigError` before anything is made, and shows no secret.
    """
    if wrapper == "":
        with pytest.raises(ConfigError):
            open_wrapper(wrapper)
        return
    with pytest.raises(ConfigError) as caught:
        open_ring(f"file://{tmp_path}/ring", application="a", wrapper=wrapper)

    assert [] == list(tmp_path.iterdir())
    assert "passphrase:secret" not in str(caught.value)


def test_K10_literal_secrets_are_recognised():
    """
    K10: what holds a password itself can be told from what names where it is.
    """
    assert has_literal_secret("certificate:/x.pfx?password=x")
    assert has_literal_secret("certificate:/x.pfx?also=/y.pfx&password=")
    for wrapper in (
        "plaintext:",
        "passphrase:env:password",
        "passphrase:file:/password=",
        "certificate:/x.pfx",
        "certificate:/x.pfx?password-env=Y",
        "certificate:/x.pfx?password-file=/y",
    ):
        assert not has_literal_secret(wrapper)


def test_K11_files_with_secrets_are_named_and_warned_of(tmp_path):
    """
    K11: the library warns once of loose modes; who must refuse them learns which files count.
    """
    loose = secret(tmp_path / "loose", b"correct horse", 0o644)
    tight = secret(tmp_path / "tight", b"correct horse")
    heard = Heard()
    for path in (loose, tight, loose):
        open_wrapper(f"passphrase:file:{path}", heard)

    (event,) = heard.events
    assert str(loose) in event.fields["text"]
    assert "0644" in event.fields["text"]
    assert opening.loose_secret_mode(tight) is None
    assert opening.loose_secret_mode(tmp_path / "none") is None
    assert (loose,) == secret_files(f"passphrase:file:{loose}")
    assert () == secret_files("passphrase:env:X") == secret_files("plaintext:")
    named = "certificate:/a.pem?key=/b.key&also=/c.pfx&password-file=/d&password-env=E"
    assert tuple(map(Path, ("/a.pem", "/b.key", "/c.pfx", "/d"))) == secret_files(named)


def test_K11_clear_keys_in_a_loose_place_are_refused(tmp_path):
    """
    K11: `open_ring` refuses to write clear keys where group or world may write, else warns.
    """
    place = tmp_path / "ring"
    place.mkdir(mode=0o700)
    place.chmod(0o777)
    with pytest.raises(InsecureConfigError, match="may write"):
        open_ring(f"file://{place}", application="a", wrapper="plaintext:")
    assert [] == list(place.iterdir())

    place.chmod(0o755)
    heard = Heard()
    open_ring(f"file://{place}", application="a", wrapper="plaintext:", events=heard)
    assert any("0755" in str(event.fields.get("text")) for event in heard.events)


def test_a_place_that_cannot_be_written_is_told_of(tmp_path):
    """
    A file where the folder should be: one clear sentence with the path.
    """
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=str(tmp_path)):
        open_ring(f"file://{tmp_path}/file/ring", application="a", wrapper="plaintext:")


# --- the package itself --------------------------------------------------------------------

QUICK = """
import sys
there = set(sys.modules)
import kagimori
assert not {"cryptography", "msgspec"} & (set(sys.modules) - there)
kagimori.open_ring
assert "kagimori.ring_stores.file" not in sys.modules
ring = kagimori.open_ring("file://" + sys.argv[1], application="a", wrapper="plaintext:")
protector = ring.protector("a")
assert protector.unprotect(protector.protect(b"x")).payload == b"x"
heavy = {"asyncio", "starlette", "uvicorn", "sqlite3", "argon2"}
assert not heavy & (set(sys.modules) - there), heavy & (set(sys.modules) - there)
print("fine")
"""


def test_the_library_alone_pulls_in_no_server(tmp_path):
    """
    Importing loads nothing; opening a ring loads no asyncio, no web framework, no database.
    """
    done = subprocess.run(
        [sys.executable, "-c", QUICK, str(tmp_path / "ring")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("fine\n", 0) == (done.stdout, done.returncode), done.stderr


def test_public_names_are_there():
    """
    Every public name can be loaded, and no other one.
    """
    for name in kagimori.__all__:
        assert getattr(kagimori, name)
    assert set(kagimori.__all__) == set(dir(kagimori))
    with pytest.raises(AttributeError):
        kagimori.nothing_of_that_name  # noqa: B018 - the access is the test


def test_a_second_wrapper_opens_what_the_first_cannot(tmp_path, monkeypatch):
    """
    Named in a variable or a call, it guards every new key too: the day on which the first
    wrapping key is lost it opens the ring alone.
    """
    for name in ("first", "second"):
        (tmp_path / name).write_text(f"the {name} long and lonely passphrase")
        (tmp_path / name).chmod(0o600)
    first, second = (f"passphrase:file:{tmp_path}/{n}" for n in ("first", "second"))
    monkeypatch.setenv("KAGIMORI_RING_RECOVERY", second)
    location = f"file://{tmp_path}/ring"
    ring = open_ring(location, application="shop", wrapper=first)
    text = ring.protector("p").protect(b"x")
    monkeypatch.delenv("KAGIMORI_RING_RECOVERY")
    (tmp_path / "first").write_text("something else altogether, for ever")

    with pytest.raises(KeyWrapError):
        open_ring(location, application="shop", wrapper=first)
    saved = open_ring(location, application="shop", wrapper=first, recovery=second)

    assert b"x" == saved.protector("p").unprotect(text).payload
