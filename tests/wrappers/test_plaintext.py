"""
No wrapping, said explicitly.
"""

from __future__ import annotations

import pytest

from kagimori.errors import KeyWrapError
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import CONTEXT, MASTER, SECRET, meaning
from kagimori.wrappers.plaintext import PlaintextWrapper


def test_the_secret_comes_back_from_dotnets_null_envelope():
    """
    The element lies readable under <unencryptedKey>, and comes back for any key id.
    """
    wrapper = PlaintextWrapper()
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    assert wrapper.can_unwrap(wrapped)
    assert "unencryptedKey" == xml.parse(wrapped.child).tag
    assert wrapped.decryptor_type.startswith(
        "Microsoft.AspNetCore.DataProtection.XmlEncryption.NullXmlDecryptor, "
    )
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_it_says_what_it_is():
    """
    Callers can see that it hides nothing, and no key stands in its repr.
    """
    wrapper = PlaintextWrapper()

    assert wrapper.is_plaintext
    assert "plaintext" == wrapper.name
    assert MASTER.hex() not in repr(wrapper)


@pytest.mark.parametrize("child", ["", "<a/>", "<a><b/><c/></a>", "<a>text</a>"])
def test_what_is_no_envelope_is_refused(child):
    """
    A null envelope holds exactly one element.
    """
    wrapper = PlaintextWrapper()
    kind = wrapper.wrap(SECRET, CONTEXT).decryptor_type

    assert not wrapper.can_unwrap(WrappedSecret("A.PassphraseXmlDecryptor, B", ""))
    with pytest.raises(KeyWrapError):
        wrapper.unwrap(WrappedSecret(kind, child), CONTEXT)
