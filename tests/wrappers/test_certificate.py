"""
Wrapping by a certificate.
"""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from kagimori.crypto.pkcs12 import load_identity
from kagimori.errors import ConfigError, KeyWrapError
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers.certificate import CertificateWrapper
from tests.wrappers.certificates import (
    PASSWORD,
    certificate,
    pem_certificate,
    pem_key,
    pfx,
)

ENC = "http://www.w3.org/2001/04/xmlenc#"


def identity(name: str):
    return load_identity(pfx(name), PASSWORD)


class TestCertificateWrapper(KeyWrapperConformance):
    # XML Encryption as .NET has it carries neither a tag nor the key's id.
    binds_context = False
    is_authenticated = False

    def make_wrapper(self, place):
        return CertificateWrapper(identity("ring"))

    def make_other(self, place):
        return CertificateWrapper(identity("other"))

    def secrets(self):
        return (PASSWORD.decode(),)


def test_it_says_which_certificate_an_envelope_needs():
    """
    By its thumbprint, also of envelopes that another certificate wrapped; of others nothing.
    """
    ring, other = identity("ring"), identity("other")
    wrapper = CertificateWrapper(ring, [other])

    assert ring.thumbprint == wrapper.newest()
    assert ring.thumbprint == wrapper.key_of(wrapper.wrap(SECRET, CONTEXT))
    old = CertificateWrapper(other).wrap(SECRET, CONTEXT)
    assert other.thumbprint == wrapper.key_of(old)
    assert wrapper.key_of(WrappedSecret(old.decryptor_type, "<a />")) is None


def test_it_is_written_with_oaep():
    """
    The key transport is RSA-OAEP, the content AES-256-CBC, and the certificate is named.
    """
    child = CertificateWrapper(identity("ring")).wrap(SECRET, CONTEXT).child
    methods = [
        m.get("Algorithm") for m in xml.parse(child).iter(f"{{{ENC}}}EncryptionMethod")
    ]

    assert [f"{ENC}aes256-cbc", f"{ENC}rsa-oaep-mgf1p"] == methods
    assert base64.b64encode(identity("ring").der).decode() in child


def rewrapped(transport: str, *, fill=None, data_key=b"k" * 32, plaintext=None):
    """
    Return an envelope as another writer would make it.
    """
    wrapped = CertificateWrapper(identity("ring")).wrap(SECRET, CONTEXT)
    root = xml.parse(wrapped.child)
    methods = list(root.iter(f"{{{ENC}}}EncryptionMethod"))
    methods[1].set("Algorithm", transport)
    scheme = (
        padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        if transport.endswith("oaep-mgf1p")
        else padding.PKCS1v15()
    )
    text = (SECRET if plaintext is None else plaintext).encode()
    missing = 16 - len(text) % 16
    filler = bytes(range(1, missing)) + bytes([missing if fill is None else fill])
    encryptor = Cipher(
        algorithms.AES((data_key * 2)[:32]), modes.CBC(b"i" * 16)
    ).encryptor()
    data = b"i" * 16 + encryptor.update(text + filler) + encryptor.finalize()
    key, value = root.iter(f"{{{ENC}}}CipherValue")
    public = certificate("ring", 2048)[0].public_key()
    key.text = base64.b64encode(public.encrypt(data_key, scheme)).decode()
    value.text = base64.b64encode(data).decode()
    return WrappedSecret(wrapped.decryptor_type, xml.write(root))


@pytest.mark.parametrize("transport", [f"{ENC}rsa-1_5", f"{ENC}rsa-oaep-mgf1p"])
def test_both_transports_and_iso_10126_padding_are_read(transport):
    """
    What .NET writes (PKCS#1 v1.5, random filler) is read, and OAEP too.
    """
    wrapper = CertificateWrapper(identity("ring"))

    assert meaning(SECRET) == meaning(wrapper.unwrap(rewrapped(transport), CONTEXT))


@pytest.mark.parametrize(
    "envelope",
    [
        lambda: rewrapped(f"{ENC}rsa-1_5", fill=0),
        lambda: rewrapped(f"{ENC}rsa-1_5", fill=17),
        lambda: rewrapped(f"{ENC}rsa-1_5", data_key=b"k" * 16),
        lambda: rewrapped(f"{ENC}rsa-1_5", plaintext="no element"),
        lambda: rewrapped(f"{ENC}rsa-1_5", plaintext="<!DOCTYPE a><a/>"),
    ],
    ids=["no padding", "long padding", "short key", "no xml", "doctype"],
)
def test_what_a_wrong_key_may_yield_is_refused(envelope):
    """
    With implicit rejection a wrong key decrypts to something: a data key of another length, bad
    padding and what is no element are all one error.
    """
    with pytest.raises(KeyWrapError):
        CertificateWrapper(identity("ring")).unwrap(envelope(), CONTEXT)


def without(pattern: str, replacement: str) -> WrappedSecret:
    wrapped = CertificateWrapper(identity("ring")).wrap(SECRET, CONTEXT)
    assert pattern in wrapped.child
    child = wrapped.child.replace(pattern, replacement, 1)
    return WrappedSecret(wrapped.decryptor_type, child)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("aes256-cbc", "tripledes-cbc"),
        ("rsa-oaep-mgf1p", "rsa-oaep"),
        ("<CipherValue>", '<CipherReference URI="file:///etc/passwd"/><CipherValue>'),
        ("CipherValue", "CipherReference"),
        ("<CipherData>", "<CipherData/><CipherData>"),
        ("EncryptedData", "EncryptedStuff"),
        ("X509Data", "KeyName"),
    ],
)
def test_other_shapes_of_xml_encryption_are_refused(pattern, replacement):
    """
    No other algorithm, no reference that would fetch something, nothing twice.
    """
    wrapped = without(pattern, replacement)
    reference = 'CipherReference URI="file' in replacement

    if reference:
        # A reference beside the value is not followed, and not looked at.
        wrapper = CertificateWrapper(identity("ring"))
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    else:
        with pytest.raises(KeyWrapError):
            CertificateWrapper(identity("ring")).unwrap(wrapped, CONTEXT)


def test_a_certificate_can_be_renewed():
    """
    New keys are wrapped by the new one, and old ones open by the old one given for reading.
    """
    old = CertificateWrapper(identity("ring")).wrap(SECRET, CONTEXT)
    renewed = CertificateWrapper(identity("other"), [identity("ring")])

    assert meaning(SECRET) == meaning(renewed.unwrap(old, CONTEXT))
    newer = renewed.wrap(SECRET, CONTEXT)
    assert meaning(SECRET) == meaning(
        CertificateWrapper(identity("other")).unwrap(newer, CONTEXT)
    )
    with pytest.raises(KeyWrapError) as caught:
        CertificateWrapper(identity("other")).unwrap(old, CONTEXT)
    assert identity("ring").thumbprint in caught.value.text


@pytest.mark.parametrize(
    ("data", "password"),
    [
        (lambda: pfx("ring", None), None),
        (lambda: pem_certificate("ring") + pem_key("ring"), None),
        (lambda: pem_key("ring") + pem_certificate("ring"), None),
        (lambda: pem_certificate("ring") + pem_key("ring", PASSWORD), PASSWORD),
        (lambda: pem_certificate("ring") + pem_key("ring"), PASSWORD),
    ],
    ids=["pfx without", "pem", "pem key first", "pem encrypted", "password unneeded"],
)
def test_files_of_all_kinds_are_read(data, password):
    """
    PKCS#12 with and without a password, PEM in any order, encrypted or not.
    """
    loaded = load_identity(data(), password)

    assert identity("ring").thumbprint == loaded.thumbprint
    assert loaded.private_key is not None


@pytest.mark.parametrize(
    ("data", "password", "text"),
    [
        (lambda: pfx("ring"), b"wrong", "cannot be read"),
        (lambda: pfx("ring"), None, "cannot be read"),
        (lambda: b"nothing", None, "cannot be read"),
        (lambda: b"", None, "cannot be read"),
        (
            lambda: pem_certificate("ring") + pem_key("ring", PASSWORD),
            b"no",
            "cannot be",
        ),
        (
            lambda: pem_certificate("ring") + pem_key("ring", PASSWORD),
            None,
            "cannot be",
        ),
        (
            lambda: pem_certificate("ring") + pem_key("other"),
            None,
            "another certificate",
        ),
        (lambda: pem_key("ring"), None, "no certificate"),
        (lambda: pfx("weak", bits=1024), PASSWORD, "2048"),
        (lambda: pfx("curve", bits=0), PASSWORD, "RSA"),
    ],
    ids=[
        "wrong password",
        "no password",
        "no file",
        "empty",
        "wrong for pem",
        "none for pem",
        "another's key",
        "key alone",
        "weak",
        "curve",
    ],
)
def test_files_that_will_not_do_are_told_of(data, password, text):
    """
    Each refusal says what is wrong, without the password.
    """
    with pytest.raises(KeyWrapError, match=text) as caught:
        load_identity(data(), password)
    assert PASSWORD.decode() not in str(caught.value)


def test_a_certificate_without_its_key_does_not_wrap():
    """
    What could not be read back is not written.
    """
    with pytest.raises(ConfigError):
        CertificateWrapper(load_identity(pem_certificate("ring"), None))
