"""
What is told of payloads, and which application name opens one.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import timedelta

import pytest

from kagimori.errors import ConfigError, ProtectionError, UnknownKeyIdError
from kagimori.keys.protection import elements, frame, xml
from kagimori.keys.protection.elements import Revocation
from kagimori.keys.protection.inspecting import (
    Inspection,
    Verdict,
    guess_application,
    inspect,
    spellings,
)
from kagimori.keys.protection.ticks import from_datetime
from kagimori.keys.timeline import KeyState
from tests.keys.protection.world import World, vector_ring, vectors

HOUR = timedelta(hours=1)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


@pytest.fixture
def ring(world: World):
    return world.ring()


def revoke(world: World, key_id: str) -> None:
    date = from_datetime(world.clock.now())
    root = elements.revocation_element(Revocation(key_id, date), "stolen")
    text = xml.write(root, indent=True, declaration=True)
    (world.place / f"revocation-{key_id}.xml").write_text(text, "utf-8")


# --- inspecting ----------------------------------------------------------------------------


def test_a_payload_that_opens_is_told_of(world: World, ring):
    """
    Key, algorithm, state and dates are said; with a rotation, that the key is not the current.
    """
    sealed = ring.protector("a", "b").protect(b"payload-xyz")
    seen = inspect(ring, sealed, purposes=("a", "b"))

    assert Verdict.OPENS is seen.verdict
    assert (ring.current_key_id, "AES_256_GCM", KeyState.CURRENT) == (
        seen.key_id,
        seen.algorithm,
        seen.state,
    )
    assert seen.is_known
    assert (None, None) == (seen.age_at_least, seen.made_before)
    assert not seen.is_time_limited
    ring.rotate()
    assert seen == inspect(ring, sealed, purposes=("a", "b"))
    assert len(frame.from_text(sealed)) == seen.length

    world.clock.advance(HOUR)
    turned = world.clock.now()
    ring.rotate(immediate=True)
    world.clock.advance(HOUR)
    later = inspect(ring, f"  {sealed}\n", purposes=("a", "b"))
    assert (Verdict.OPENS, KeyState.PREVIOUS) == (later.verdict, later.state)
    assert (turned, HOUR) == (later.made_before, later.age_at_least)
    assert 2 * HOUR == later.age_at_most
    assert later.made_after is not None
    assert later.made_after < turned
    assert "no longer the current" in later.text


def test_without_purposes_nothing_is_opened(ring):
    """
    Key known, and that is all; an empty list of purposes is a mistake.
    """
    sealed = ring.protector("a").protect(b"x")

    assert Verdict.KEY_KNOWN is inspect(ring, sealed).verdict
    with pytest.raises(ConfigError):
        inspect(ring, sealed, purposes=())


def test_the_reasons_why_a_payload_does_not_open_are_told_apart(tmp_path, ring):
    """
    Unknown key; known key with wrong purposes, wrong application, or altered; and cut.
    """
    protector = ring.protector("a")
    sealed = protector.protect(b"x" * 50)
    raw = bytearray(frame.from_text(sealed))
    raw[-1] ^= 1
    altered = urlsafe_b64encode(raw).rstrip(b"=").decode()
    cut = urlsafe_b64encode(raw[:60]).rstrip(b"=").decode()
    stranger = World(tmp_path / "other").ring().protector("a").protect(b"x")
    other_app = World(tmp_path).ring(application="store")

    assert Verdict.OPENS is inspect(ring, sealed, purposes=("a",)).verdict
    for told in (
        inspect(ring, sealed, purposes=("b",)),
        inspect(ring, altered, purposes=("a",)),
        inspect(other_app, sealed, purposes=("a",)),
    ):
        assert (Verdict.NOT_OURS, True) == (told.verdict, told.is_known)
        for reason in ("purposes", "application", "altered"):
            assert reason in told.hint
    unknown = inspect(ring, stranger, purposes=("a",))
    assert (Verdict.UNKNOWN_KEY, False, None) == (
        unknown.verdict,
        unknown.is_known,
        unknown.algorithm,
    )
    assert unknown.key_id == frame.id_text(frame.from_text(stranger)[4:20])
    assert Verdict.CUT_SHORT is inspect(ring, cut).verdict


@pytest.mark.parametrize("algorithm", ["AES_256_CBC_HMACSHA256", "AES_128_GCM"])
def test_impossible_lengths_are_told(world: World, algorithm: str):
    """
    A payload that lost a part of its end is called cut where its length shows it.
    """
    ring = world.ring(algorithm=algorithm)
    raw = ring.protector("a").protect_bytes(b"")

    def verdict(data: bytes) -> Verdict:
        text = urlsafe_b64encode(data).rstrip(b"=").decode()
        return inspect(ring, text, purposes=("a",)).verdict

    assert Verdict.OPENS is verdict(raw)
    assert {Verdict.CUT_SHORT} == {verdict(raw[:n]) for n in range(4, len(raw))}
    if "CBC" in algorithm:
        assert Verdict.CUT_SHORT is verdict(raw + b"x")
    assert Verdict.NOT_OURS is verdict(raw + bytes(16))


def test_a_revoked_key_is_told(world: World, ring):
    """
    Revoked, whether or not the purposes are right; since when; and nothing opens.
    """
    sealed, first = ring.protector("a").protect(b"x"), ring.current_key_id
    revoke(world, first)
    ring.refresh()

    for purposes in (("a",), ("b",), None):
        told = inspect(ring, sealed, purposes=purposes)
        assert (Verdict.REVOKED, KeyState.REVOKED) == (told.verdict, told.state)
        assert f"{world.clock.now():%Y-%m-%d}" in told.text


def test_time_limited_payloads_are_recognised(world: World, ring):
    """
    With the purposes that the application names, whether they have ended or not.
    """
    limited = ring.protector("a").time_limited()
    ends = world.clock.now() + HOUR
    sealed, endless = limited.protect(b"x", expires_at=ends), limited.protect(b"y")

    told = inspect(ring, sealed, purposes=("a",))
    assert (Verdict.OPENS, True, ends) == (
        told.verdict,
        told.is_time_limited,
        told.expires,
    )
    told = inspect(ring, endless, purposes=("a",))
    assert (Verdict.OPENS, True, None) == (
        told.verdict,
        told.is_time_limited,
        told.expires,
    )
    world.clock.set(ends + HOUR)
    told = inspect(ring, sealed, purposes=("a",))
    assert (Verdict.EXPIRED, ends) == (told.verdict, told.expires)
    assert Verdict.NOT_OURS is inspect(ring, sealed, purposes=("b",)).verdict


@pytest.mark.parametrize(
    ("text", "verdict", "word"),
    [
        ("", Verdict.NOT_A_PAYLOAD, ""),
        ("chunks-3", Verdict.NOT_A_PAYLOAD, "Join"),
        ("chunks-12", Verdict.NOT_A_PAYLOAD, "Join"),
        ("CfDJ8+/A", Verdict.NOT_A_PAYLOAD, "- and _"),
        ("CfDJ8AAA==", Verdict.NOT_A_PAYLOAD, "padding"),
        ("é", Verdict.NOT_A_PAYLOAD, ""),
        ("gAAAAABl", Verdict.NOT_A_PAYLOAD, "CfDJ8"),
        ("eyJhbGciOiJFUzI1NiJ9.e30.AAAA", Verdict.NOT_A_PAYLOAD, ""),
        ("CfDJ8AAA", Verdict.CUT_SHORT, "cut"),
        ("CfDJ8QAAAAAAAAAAAAAAAAAAAAAA", Verdict.NEWER_FORMAT, ""),
    ],
)
def test_what_is_no_payload_is_told(ring, text: str, verdict: Verdict, word: str):
    """
    Other tokens, cookies in chunks, other alphabets, cut ones, newer versions.
    """
    told = inspect(ring, text, purposes=("a",))

    assert verdict is told.verdict
    assert (None, False) == (told.key_id, told.is_known)
    assert word in told.hint


def test_K9_nothing_of_the_payload_shows(ring):
    """
    K9: an inspection holds neither what was protected nor the purposes that were tried.
    """
    sealed = ring.protector("purpose-xyz").protect(b"payload-xyz")
    for purposes in (("purpose-xyz",), ("other-xyz",)):
        told = inspect(ring, sealed, purposes=purposes)
        assert isinstance(told, Inspection)
        assert "xyz" not in repr(told)


DPAPI = """<key id="{id}" version="1">
  <creationDate>2020-01-01T00:00:00Z</creationDate>
  <activationDate>2020-01-01T00:00:00Z</activationDate>
  <expirationDate>2020-03-31T00:00:00Z</expirationDate>
  <descriptor deserializerType="Microsoft.AspNetCore.DataProtection.AuthenticatedEncryption.\
ConfigurationModel.AuthenticatedEncryptorDescriptorDeserializer, \
Microsoft.AspNetCore.DataProtection">
    <descriptor>
      <encryption algorithm="AES_256_CBC" />
      <validation algorithm="HMACSHA256" />
      <encryptedSecret
        decryptorType="Microsoft.AspNetCore.DataProtection.XmlEncryption.{decryptor}, \
Microsoft.AspNetCore.DataProtection" xmlns="http://schemas.asp.net/2015/03/dataProtection">
        <encryptedKey xmlns="">
          <!-- This key is encrypted with Windows DPAPI. -->
          <value>AQAAANCMnd8BFdERjHoAwE/Cl+s=</value>
        </encryptedKey>
      </encryptedSecret>
    </descriptor>
  </descriptor>
</key>
"""


@pytest.mark.parametrize(
    ("decryptor", "name"),
    [("DpapiXmlDecryptor", "DPAPI"), ("DpapiNGXmlDecryptor", "DPAPI-NG")],
)
def test_keys_under_dpapi_are_recognised_and_explained(
    world: World, ring, decryptor: str, name: str
):
    """
    Such a key opens on Windows only: the ring serves without it, and says what to do.
    """
    key_id = "0f0e0d0c-0b0a-4948-8746-050403020100"
    (world.place / f"key-{key_id}.xml").write_text(
        DPAPI.format(id=key_id, decryptor=decryptor), "utf-8"
    )
    ring.refresh()
    raw = frame.MAGIC + frame.id_bytes(key_id) + bytes(100 - 20)
    text = urlsafe_b64encode(raw).rstrip(b"=").decode()

    told = inspect(ring, text, purposes=("a",))
    assert (Verdict.UNREADABLE_KEY, "AES_256_CBC_HMACSHA256") == (
        told.verdict,
        told.algorithm,
    )
    assert f"Windows {name}," in told.hint
    assert "export" in told.hint
    with pytest.raises(ProtectionError):
        ring.protector("a").unprotect(text)
    with pytest.raises(ProtectionError):
        guess_application(ring, text, "shop", ("a",))
    sealed = ring.protector("a").protect(b"x")
    assert b"x" == ring.protector("a").unprotect(sealed).payload
    views = ring.keys()
    assert decryptor in [name for view in views for name in view.wrapped_by]


def test_a_store_that_does_not_answer_is_told(tmp_path, world: World, ring):
    """
    An unknown key while the store is down may be a new one, and that is said.
    """
    stranger = World(tmp_path / "other").ring().protector("a").protect(b"x")
    world.clock.advance(timedelta(minutes=5))
    known = inspect(ring, stranger)
    world.clock.advance(timedelta(minutes=5))
    world.store.fault = OSError("down")
    unsure = inspect(ring, stranger)

    assert Verdict.UNKNOWN_KEY is known.verdict is unsure.verdict
    assert "does not answer" not in known.text
    assert "does not answer" in unsure.text


# --- guessing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "tried"),
    [
        ("/app", ["/app", "/app/", "/app\\", ""]),
        ("/app/", ["/app/", "/app", "/app\\", ""]),
        (
            "C:\\inetpub\\app",
            ["C:\\inetpub\\app", "C:\\inetpub\\app\\", "C:\\inetpub\\app/", ""],
        ),
        (" /app ", [" /app ", "/app", "/app/", "/app\\", ""]),
        ("shop", ["shop", "shop/", "shop\\", ""]),
        ("/", ["/", "\\", ""]),
        ("", [""]),
        (None, [""]),
    ],
)
def test_spellings_of_a_content_root(path: str | None, tried: list[str]):
    """
    As given, trimmed, with either separator and without, and no name at all, each once.
    """
    assert tried == list(spellings(path))


@pytest.mark.parametrize("spelling", ["/app", "/app/", "shop", "noted", ""])
@pytest.mark.parametrize("limited", [False, True], ids=["plain", "limited"])
def test_the_application_name_is_guessed(tmp_path, spelling: str, limited: bool):
    """
    The name that a payload was made under is found, of a time-limited payload too.
    """
    world = World(tmp_path)
    world.ring(application="noted")
    protector = world.ring(application=spelling or None).protector("a", "b")
    if limited:
        sealed = protector.time_limited().protect(b"x", expires_in=HOUR)
        world.clock.advance(2 * HOUR)
    else:
        sealed = protector.protect(b"x")
    asked = World(tmp_path, world.clock).ring(application="shop")

    assert spelling == guess_application(asked, sealed, "/app", ("a", "b"))
    assert guess_application(asked, sealed, "/app", ("b", "a")) is None
    assert (
        b"x"
        == (
            world.ring(application=spelling or None)
            .protector("a", "b", *[frame.TIME_LIMITED] * limited)
            .unprotect(sealed)
            .payload[8 * limited :]
        )
    )


def test_a_guess_that_cannot_help_says_so(tmp_path, world: World, ring):
    """
    No spelling, a foreign ring, no payload, no purposes: told apart.
    """
    sealed = world.ring(application="/elsewhere").protector("a").protect(b"x")
    stranger = World(tmp_path / "other").ring().protector("a").protect(b"x")

    assert guess_application(ring, sealed, "/elsewhere/", ("a",)) == "/elsewhere"
    assert guess_application(ring, sealed, "/app", ("a",)) is None
    with pytest.raises(UnknownKeyIdError):
        guess_application(ring, stranger, "/app", ("a",))
    for bad in ("", "x=", "AAAA"):
        with pytest.raises(ProtectionError):
            guess_application(ring, bad, "/app", ("a",))
    with pytest.raises(ConfigError):
        guess_application(ring, sealed, "/app", ())


def test_a_payload_of_a_revoked_key_tells_its_application(world: World, ring):
    """
    What is learnt is a name, so the revocation does not stand in the way.
    """
    sealed, first = ring.protector("a").protect(b"x"), ring.current_key_id
    revoke(world, first)
    ring.refresh()

    assert "shop" == guess_application(ring, sealed, None, ("a",))


@pytest.mark.parametrize("case", vectors("rings")[2:4], ids=lambda case: case["ring"])
def test_the_names_of_dotnets_rings_are_guessed(case):
    """
    A ring of .NET's, opened without its name: the payload tells it.
    """
    ring = vector_ring(case["ring"], None)
    payload, name = case["payloads"][0]["payload"], case["application"]
    purposes = tuple(case["purposes"])

    assert name == guess_application(ring, payload, f" {name}/", purposes)
    assert guess_application(ring, payload, "/other", purposes) is None
    assert Verdict.NOT_OURS is inspect(ring, payload, purposes=purposes).verdict
