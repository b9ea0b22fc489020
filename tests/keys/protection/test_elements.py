"""
Elements of a ring.
"""

from __future__ import annotations

import pytest

from kagimori.errors import (
    KagimoriError,
    KeyRingError,
    KeyWrapError,
    RingMalformedError,
)
from kagimori.keys.protection import descriptor, elements, ticks, xml
from kagimori.keys.protection.algorithms import ALGORITHMS
from kagimori.keys.protection.elements import Revocation, RingState
from kagimori.keys.protection.ticks import Ticks

KEY_ID = "3d6d01fd-c0e7-44ae-82dd-013b996b4093"
DATES = (
    Ticks(638_000_000_000_000_001),
    Ticks(638_000_000_000_000_002),
    Ticks(639 * 10**15),
)
MASTER = bytes(range(64))
MODEL = "Microsoft.AspNetCore.DataProtection.AuthenticatedEncryption.ConfigurationModel"


def no_wrapper(wrapped, key_id):
    if descriptor.is_null(wrapped):
        return descriptor.null_unwrap(wrapped)
    raise KeyWrapError("none here")


def key_xml(kind: str, inner: str, *, model: str = MODEL, tail: str = ", X") -> str:
    master = descriptor.secret_text(MASTER)
    return (
        f'<key id="{KEY_ID}" version="1"><creationDate>2020-01-01T00:00:00Z</creationDate>'
        "<activationDate>2020-01-01T00:00:00Z</activationDate>"
        "<expirationDate>2020-04-01T00:00:00Z</expirationDate>"
        f'<descriptor deserializerType="{model}.{kind}{tail}"><descriptor>{inner}{master}'
        "</descriptor></descriptor></key>"
    )


def read(text: str):
    stored = elements.read_key(xml.parse(text), "name", text)
    return stored, descriptor.read_secret(stored.id, text, no_wrapper)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_written_key_is_read(name: str):
    """
    Dates to the tick, algorithm and master key come back, for all nine algorithms.
    """
    wrapped = descriptor.null_wrap(descriptor.secret_text(MASTER))
    root = elements.key_element(KEY_ID, DATES, ALGORITHMS[name], wrapped)
    stored, (row, master) = read(xml.write(root, indent=True, declaration=True))

    assert (KEY_ID, *DATES) == (
        stored.id,
        stored.created,
        stored.activates,
        stored.expires,
    )
    assert ALGORITHMS[name] == row == stored.algorithm
    assert MASTER == master
    assert f"key-{KEY_ID}" == elements.friendly_name(root)
    assert ["creationDate", "activationDate", "expirationDate", "descriptor"] == [
        child.tag for child in root
    ]


@pytest.mark.parametrize(
    ("kind", "inner", "expected"),
    [
        (
            "AuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="AES_192_CBC"/><validation algorithm="HMACSHA512"/>',
            "AES_192_CBC_HMACSHA512",
        ),
        (
            "ManagedAuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="Aes" keyLength="128"/><validation algorithm="HMACSHA1"/>',
            "AES_128_CBC_HMACSHA1",
        ),
        (
            "ManagedAuthenticatedEncryptorDescriptorDeserializer",
            (
                '<encryption algorithm="System.Security.Cryptography.AesManaged, System.Core" '
                'keyLength="256"/><validation '
                'algorithm="System.Security.Cryptography.HMACSHA384, mscorlib"/>'
            ),
            "AES_256_CBC_HMACSHA384",
        ),
        (
            "CngCbcAuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="AES" keyLength="256" provider="p"/><hash algorithm="SHA256"/>',
            "AES_256_CBC_HMACSHA256",
        ),
        (
            "CngGcmAuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="AES" keyLength="192"/>',
            "AES_192_GCM",
        ),
    ],
)
def test_descriptors_of_every_kind_are_read(kind: str, inner: str, expected: str):
    """
    The class in the type name rules, with any version, none, and under the namespace of old.
    """
    old = MODEL.replace("AspNetCore", "AspNet")
    for model in (MODEL, old):
        for tail in ("", ", A, Version=99.0.0.0, Culture=neutral"):
            stored, (row, master) = read(key_xml(kind, inner, model=model, tail=tail))
            assert expected == row.name == stored.algorithm.name
            assert MASTER == master


@pytest.mark.parametrize(
    ("kind", "inner"),
    [
        (
            "AuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="ROT13"/>',
        ),
        (
            "AuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="AES_256_CBC"/>',
        ),
        ("AuthenticatedEncryptorDescriptorDeserializer", ""),
        ("SomethingElse", '<encryption algorithm="AES" keyLength="256"/>'),
        (
            "CngGcmAuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="AES" keyLength="64"/>',
        ),
        (
            "ManagedAuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="RC2" keyLength="128"/><validation algorithm="HMACSHA1"/>',
        ),
        (
            "ManagedAuthenticatedEncryptorDescriptorDeserializer",
            '<encryption algorithm="Aes" keyLength="256"/><validation algorithm="HMACRIPEMD160"/>',
        ),
    ],
)
def test_a_key_of_an_unknown_kind_is_there_and_fails_on_use(kind: str, inner: str):
    """
    Its id and dates are known, so that nothing is minted in its place; using it is an error.
    """
    text = key_xml(kind, inner)
    stored = elements.read_key(xml.parse(text), "name", text)

    assert stored.algorithm is None
    with pytest.raises(KeyRingError):
        descriptor.read_secret(stored.id, text, no_wrapper)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (KEY_ID, "nonsense"),
        ("<creationDate>2020-01-01T00:00:00Z", "<creationDate>yesterday"),
        ("activationDate", "activationTime"),
        ("<expirationDate>2020-04-01T00:00:00Z", "<expirationDate>"),
    ],
)
def test_a_key_without_id_or_dates_cannot_be_read(pattern: str, replacement: str):
    """
    Such a key is skipped by whoever reads the ring; its twin as it was is read.
    """
    kind = "CngGcmAuthenticatedEncryptorDescriptorDeserializer"
    text = key_xml(kind, '<encryption algorithm="AES" keyLength="256"/>')
    assert KEY_ID == elements.read_key(xml.parse(text), "", text).id

    with pytest.raises(RingMalformedError):
        elements.read_key(xml.parse(text.replace(pattern, replacement)), "", text)


@pytest.mark.parametrize(
    "spelling",
    [
        KEY_ID.upper(),
        f"{{{KEY_ID}}}",
        f"({KEY_ID})",
        KEY_ID.replace("-", ""),
        f" {KEY_ID}\n",
    ],
)
def test_guids_of_any_spelling_are_one(spelling: str):
    """
    Upper case, braces, brackets, no hyphens: the same key.
    """
    assert KEY_ID == elements.canonical_id(spelling)


@pytest.mark.parametrize(
    "master",
    [
        "<masterKey/>",
        "<masterKey>!!!</masterKey>",
        "<masterKey><value>A</value></masterKey>",
        "",
    ],
)
def test_a_malformed_master_key_is_refused(master: str):
    """
    No base64, an empty secret, no element: an error that names the key, not the secret.
    """
    kind = "CngGcmAuthenticatedEncryptorDescriptorDeserializer"
    text = key_xml(kind, '<encryption algorithm="AES" keyLength="256"/>')
    text = text.replace(descriptor.secret_text(MASTER), master)

    with pytest.raises(RingMalformedError, match=KEY_ID):
        descriptor.read_secret(KEY_ID, text, no_wrapper)


def test_a_secret_wrapped_without_end_is_refused():
    """
    An envelope that unwraps to another one, for ever, ends in an error.
    """
    name = "X.TestXmlDecryptor, X"
    namespace = xml.DATA_PROTECTION
    secret = f'<encryptedSecret decryptorType="{name}" xmlns="{namespace}"><a/></encryptedSecret>'
    kind = "CngGcmAuthenticatedEncryptorDescriptorDeserializer"
    text = key_xml(kind, '<encryption algorithm="AES" keyLength="256"/>')
    text = text.replace(descriptor.secret_text(MASTER), secret)

    with pytest.raises(RingMalformedError, match="too often"):
        descriptor.read_secret(KEY_ID, text, lambda _wrapped, _id: secret)


@pytest.mark.parametrize(
    ("revocation", "name"),
    [
        (
            Revocation("a11f35fc-1fed-4bd4-b727-056a63b70932", DATES[0]),
            "revocation-a11f35fc-1fed-4bd4-b727-056a63b70932",
        ),
        (
            Revocation(None, ticks.parse("2015-03-01T19:13:19.7573854-08:00")),
            "revocation-20150302T0313197573854Z",
        ),
    ],
)
def test_a_written_revocation_is_read(revocation: Revocation, name: str):
    """
    By id and by date, to the tick, under .NET's file name.
    """
    root = elements.revocation_element(revocation, "a <reason> \x00")
    back = xml.parse(xml.write(root, indent=True))

    assert revocation == elements.read_revocation(back)
    assert name == elements.friendly_name(back)
    assert "a <reason> \ufffd" == back.findtext("reason")


@pytest.mark.parametrize(
    "text",
    [
        "<revocation/>",
        '<revocation><key id="*"/></revocation>',
        "<revocation><revocationDate>2020-01-01T00:00:00Z</revocationDate></revocation>",
        (
            '<revocation><revocationDate>2020-01-01T00:00:00Z</revocationDate><key id="{invalid}"/>'
            "</revocation>"
        ),
        '<revocation><revocationDate>soon</revocationDate><key id="*"/></revocation>',
    ],
)
def test_a_malformed_revocation_is_fatal(text: str):
    """
    What cannot be read might have revoked anything.
    """
    with pytest.raises(RingMalformedError):
        elements.read_revocation(xml.parse(text))


def test_our_state_is_read_back():
    """
    Generation, application and reasons survive, characters included that XML cannot hold.
    """
    state = RingState(
        7,
        "鍵<&>",
        {KEY_ID: "left in a train"},
        {KEY_ID: ticks.parse("2026-11-21T12:00:00.1234567Z")},
        {KEY_ID: ticks.parse("2026-11-22T12:00:00Z")},
        ("0123", "4567"),
    )
    back = xml.parse(xml.write(elements.state_element(state)))

    assert elements.is_state(back)
    assert state == elements.read_state(back)
    assert elements.STATE == elements.friendly_name(back)
    assert RingState() == elements.read_state(
        xml.parse('<state xmlns="urn:kagimori:ring:1"/>')
    )
    bad = xml.parse('<state xmlns="urn:kagimori:ring:1" generation="many"/>')
    with pytest.raises(KagimoriError):
        elements.read_state(bad)


def test_foreign_elements_have_names_of_their_own():
    """
    What is none of .NET's or ours is named by its content, by letters that fit a file.
    """
    names = {
        elements.friendly_name(xml.parse(text))
        for text in (
            "<a/>",
            "<a>1</a>",
            '<x:ä xmlns:x="urn:y"/>',
            "<key/>",
            "<revocation/>",
        )
    }

    assert 5 == len(names)
    assert all(name.replace("-", "").isascii() for name in names)
