"""
The envelope that KMS, transit engines and HSMs share.
"""

from __future__ import annotations

import base64
import re

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import KeyWrapError
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    OTHER_CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers.envelope import Envelope, EnvelopeFormat, named, new_data_key

FORMAT = EnvelopeFormat("test-kms", "TestXmlDecryptor")
OTHER = EnvelopeFormat("other-kms", "OtherXmlDecryptor")
NAME = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"
DATA_KEY = bytes(range(32))
WRAPPED_KEY = b"wrapped by a service"


def sealed(version: str = "7") -> WrappedSecret:
    return FORMAT.seal(
        SECRET,
        CONTEXT,
        data_key=DATA_KEY,
        wrapped_key=WRAPPED_KEY,
        wrapping_key=NAME,
        key_version=version,
    )


def opened(wrapped: WrappedSecret, context: str = CONTEXT, key=DATA_KEY) -> str:
    return FORMAT.open(FORMAT.read(wrapped, context), context, key)


class LocalWrapper:
    """
    The thinnest wrapper on the envelope: its wrapping key is an AES key in memory.
    """

    is_plaintext = False

    def __init__(self, key: bytes):
        self._key = AESGCM(key)
        self.name = "a wrapping key in memory"

    def wrap(self, plaintext, context):
        data_key = new_data_key()
        wrapped_key = self._key.encrypt(data_key[:12], data_key, None)
        return FORMAT.seal(
            plaintext,
            context,
            data_key=data_key,
            wrapped_key=data_key[:12] + wrapped_key,
            wrapping_key="local",
        )

    def can_unwrap(self, wrapped):
        return FORMAT.matches(wrapped)

    def unwrap(self, wrapped, context):
        envelope = FORMAT.read(wrapped, context)
        raw = envelope.wrapped_key
        try:
            data_key = self._key.decrypt(raw[:12], raw[12:], None)
        except InvalidTag:
            raise KeyWrapError("That wrapping key does not open it.") from None
        return FORMAT.open(envelope, context, data_key)

    def __reduce__(self):
        raise TypeError


class TestEnvelopes(KeyWrapperConformance):
    def make_wrapper(self, place):
        return LocalWrapper(b"k" * 32)

    def make_other(self, place):
        return LocalWrapper(b"o" * 32)


@pytest.mark.parametrize("version", ["", "7"])
def test_the_envelope_is_as_documented(version: str):
    """
    A reader that was written from the documentation alone opens it, with a version or without.
    """
    wrapped = sealed(version)
    root = xml.parse(wrapped.child)
    value = root.find("value")
    data_key = root.find("dataKey").text
    lines = ["kagimori-envelope-1", "test-kms", NAME, version, data_key, CONTEXT]
    element = AESGCM(DATA_KEY).decrypt(
        base64.b64decode(value.get("nonce")),
        base64.b64decode(value.text),
        "\n".join(lines).encode(),
    )

    assert (
        "Kagimori.DataProtection.TestXmlDecryptor, Kagimori" == wrapped.decryptor_type
    )
    assert ("envelope", {"version": "1", "kind": "test-kms"}) == (root.tag, root.attrib)
    assert NAME == root.find("wrappingKey").text
    assert WRAPPED_KEY == base64.b64decode(data_key)
    assert meaning(SECRET) == meaning(element.decode())


def test_what_an_envelope_says_is_read_without_opening_it():
    """
    The inventory learns the wrapping key and its version from the envelope alone.
    """
    envelope = FORMAT.read(sealed(), CONTEXT)

    assert (NAME, "7", WRAPPED_KEY) == (
        envelope.wrapping_key,
        envelope.key_version,
        envelope.wrapped_key,
    )
    assert f"{NAME}#7" == envelope.key == FORMAT.key_of(sealed()) == named(NAME, "7")
    assert NAME == FORMAT.key_of(sealed(""))
    assert FORMAT.key_of(WrappedSecret(OTHER.decryptor_type, sealed().child)) is None
    assert FORMAT.key_of(WrappedSecret(FORMAT.decryptor_type, "<x/>")) is None
    assert "wrapped by" not in repr(envelope)


def test_K3_name_version_and_wrapped_key_are_bound():
    """
    K3: an envelope whose wrapping key, version, wrapped data key or key id was changed does
    not open; unchanged it does.
    """
    wrapped = sealed()
    assert meaning(SECRET) == meaning(opened(wrapped))

    for old, new in (
        (NAME, NAME.replace("1234", "4321")),
        ('version="7"', 'version="8"'),
        (' version="7"', ""),
        (base64.b64encode(WRAPPED_KEY).decode(), base64.b64encode(b"other").decode()),
    ):
        assert old in wrapped.child
        child = wrapped.child.replace(old, new)
        with pytest.raises(KeyWrapError, match="altered"):
            opened(WrappedSecret(wrapped.decryptor_type, child))
    with pytest.raises(KeyWrapError, match="altered"):
        opened(wrapped, OTHER_CONTEXT)


def test_K3_an_envelope_of_one_kind_is_none_of_another():
    """
    K3: the kind is authenticated: under another kind's type the envelope is refused.
    """
    child = sealed().child
    assert meaning(SECRET) == meaning(
        opened(WrappedSecret(FORMAT.decryptor_type, child))
    )

    with pytest.raises(KeyWrapError):
        OTHER.read(WrappedSecret(OTHER.decryptor_type, child), CONTEXT)
    renamed = OTHER.read(
        WrappedSecret(OTHER.decryptor_type, child.replace("test-kms", "other-kms")),
        CONTEXT,
    )
    with pytest.raises(KeyWrapError):
        OTHER.open(renamed, CONTEXT, DATA_KEY)


@pytest.mark.parametrize(
    "key", [b"", bytes(32), bytes(16), DATA_KEY[:16], DATA_KEY * 2]
)
def test_another_data_key_is_refused(key: bytes):
    """
    Whatever a service gives back for the data key, only the right one opens.
    """
    assert opened(sealed())

    with pytest.raises(KeyWrapError) as caught:
        opened(sealed(), key=key)
    assert not caught.value.transient


def test_bytes_that_are_no_text_are_refused():
    """
    Who may wrap may seal anything; what is no UTF-8 is refused, and not quoted.
    """
    nonce = bytes(12)
    lines = f"kagimori-envelope-1\ntest-kms\n{NAME}\n\nAAAA\n{CONTEXT}".encode()
    raw = AESGCM(DATA_KEY).encrypt(nonce, b"secret \xff", lines)
    envelope = Envelope(NAME, "", bytes(3), nonce, raw)

    with pytest.raises(KeyWrapError) as caught:
        FORMAT.open(envelope, CONTEXT, DATA_KEY)
    assert "secret" not in repr(caught.value.__context__) + str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (' version="1"', ' version="2"'),
        (' version="1"', ""),
        ('kind="test-kms"', 'kind="test-kms" more="x"'),
        ("<envelope ", '<envelope xmlns="urn:kagimori:ring:1" '),
        ("<wrappingKey", "<wrappingkey"),
        (f">{NAME}<", "><"),
        (f">{NAME}<", f">{NAME}\n{NAME}<"),
        (f">{NAME}<", f">{NAME}é<"),
        (f">{NAME}<", f">{NAME}<b/><"),
        (f">{NAME}<", f">{'x' * 2049}<"),
        ('<wrappingKey version="7"', '<wrappingKey version=""'),
        ('<wrappingKey version="7"', '<wrappingKey version=" 7"'),
        ('<wrappingKey version="7"', '<wrappingKey version="7" url="https://evil"'),
        ("<dataKey>", '<dataKey algorithm="none">'),
        ("<dataKey>", "<dataKey>*"),
        ("<dataKey>", "<dataKey />\n<dataKey>"),
        ("</dataKey>", "</dataKey><dataKey>AAAA</dataKey>"),
        ("<dataKey>", "<dataKey>AB=="),
        ('nonce="', 'nonce="AAAA'),
        ("</value>", "</value><extra />"),
    ],
)
def test_parsing_is_strict(old: str, new: str):
    """
    Anything but the one shape is refused before a service is asked; comments do not count.
    """
    wrapped = sealed()
    assert old in wrapped.child
    commented = wrapped.child.replace("<dataKey", "<!-- note --><dataKey")
    assert opened(WrappedSecret(wrapped.decryptor_type, commented))

    child = wrapped.child.replace(old, new, 1)
    with pytest.raises(KeyWrapError, match="malformed"):
        FORMAT.read(WrappedSecret(wrapped.decryptor_type, child), CONTEXT)


def test_a_wrapped_key_of_any_size_is_not_sent_anywhere():
    """
    A hostile ring cannot make us post megabytes to a vault.
    """
    for size, fits in ((16 * 1024, True), (16 * 1024 + 1, False)):
        text = base64.b64encode(bytes(size)).decode()
        child = re.sub(
            "<dataKey>.*</dataKey>", f"<dataKey>{text}</dataKey>", sealed().child
        )
        wrapped = WrappedSecret(FORMAT.decryptor_type, child)
        assert fits == (FORMAT.key_of(wrapped) is not None)


@pytest.mark.parametrize(
    "changed",
    [
        {"data_key": bytes(31)},
        {"data_key": b""},
        {"wrapped_key": b""},
        {"wrapped_key": bytes(16 * 1024 + 1)},
        {"wrapping_key": ""},
        {"wrapping_key": "two\nlines"},
        {"wrapping_key": "鍵"},
        {"key_version": " 7"},
    ],
)
def test_an_impossible_answer_of_a_service_is_refused(changed: dict[str, object]):
    """
    What no envelope can hold is not written, so that every written envelope can be read.
    """
    given = {"data_key": DATA_KEY, "wrapped_key": WRAPPED_KEY, "wrapping_key": NAME}
    FORMAT.seal(SECRET, CONTEXT, **given)

    with pytest.raises(KeyWrapError):
        FORMAT.seal(SECRET, CONTEXT, **(given | changed))


@pytest.mark.parametrize("kind", ["", "Upper", "two\nlines", "x" * 41])
def test_a_kind_is_a_word(kind: str):
    """
    A kind stands in the authenticated lines, so it is one word.
    """
    assert EnvelopeFormat("aws-kms", "AwsKmsXmlDecryptor").kind
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the next line looks at it
        EnvelopeFormat(kind, "AwsKmsXmlDecryptor")
    assert kind == str(caught.value)


@given(place=st.integers(0, 10_000), new=st.characters(max_codepoint=0x2FF))
def test_K1_no_altered_character_opens_to_something_else(place: int, new: str):
    """
    K1: whichever character of an envelope is replaced by whatever, it opens to the same
    element or is refused by a `KeyWrapError`.
    """
    wrapped = sealed()
    place %= len(wrapped.child)
    child = wrapped.child[:place] + new + wrapped.child[place + 1 :]
    try:
        text = opened(WrappedSecret(wrapped.decryptor_type, child))
    except KeyWrapError:
        return

    assert meaning(SECRET) == meaning(text)
