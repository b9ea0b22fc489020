"""
The wrapper over keys that seal something short elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kagimori.errors import KeyWrapError
from kagimori.per_process import PerProcess
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers.envelope import EnvelopeFormat
from kagimori.wrappers.sealing import Sealed, SealingWrapper, UnopenableError

ENVELOPES = EnvelopeFormat("drawer", "DrawerXmlDecryptor")


class Drawer:
    """
    A key in a drawer, which may be shut for sealing or for opening.
    """

    def __init__(self, name, *, seals=True, opens=True, lies=False):
        self.name = name
        self.seals, self.opens, self.lies = seals, opens, lies

    def _key(self):
        return AESGCM(self.name.encode().ljust(32))

    def seal(self, data_key, context):
        if not self.seals:
            raise KeyWrapError("sealing is locked", hint="unlock it")
        nonce = os.urandom(12)
        sealed = self._key().encrypt(nonce, data_key, context.encode())
        return Sealed(nonce + sealed, self.name, "7")

    def is_named(self, envelope):
        return envelope.wrapping_key == self.name

    def open(self, envelope, context):
        if not self.opens:
            raise KeyWrapError("opening is locked", hint="unlock it")
        if self.lies:
            return bytes(32)
        raw = envelope.wrapped_key
        try:
            return self._key().decrypt(raw[:12], raw[12:], context.encode())
        except InvalidTag:
            raise UnopenableError("another drawer") from None

    def dud(self):
        return Sealed(bytes(60), self.name)


class TestSealingWrapper(KeyWrapperConformance):
    def make_wrapper(self, place):
        return SealingWrapper(Drawer("oak"), ENVELOPES)

    def make_other(self, place):
        return SealingWrapper(Drawer("pine"), ENVELOPES)


def test_a_further_key_opens_what_names_it():
    """
    An envelope chooses among the keys that are configured; where it names none, the first one.
    """
    old = SealingWrapper(Drawer("oak"), ENVELOPES).wrap(SECRET, CONTEXT)
    both = SealingWrapper(Drawer("pine"), ENVELOPES, also=[Drawer("oak")])

    assert "oak#7" == both.key_of(old)
    assert "pine#7" == both.newest() == both.key_of(both.wrap(SECRET, CONTEXT))
    assert meaning(SECRET) == meaning(both.unwrap(old, CONTEXT))
    with pytest.raises(UnopenableError):
        SealingWrapper(Drawer("pine"), ENVELOPES).unwrap(old, CONTEXT)


@pytest.mark.parametrize("seals", [True, False])
@pytest.mark.parametrize("opens", [True, False])
def test_each_right_is_tried_by_itself(seals, opens):
    """
    Whether one may unwrap shows also where nothing can be wrapped.
    """
    wrapper = SealingWrapper(Drawer("oak", seals=seals, opens=opens), ENVELOPES)
    wrap, unwrap = wrapper.examine()

    assert ("wrap", seals) == (wrap.right, wrap.ok)
    assert ("unwrap", opens) == (unwrap.right, unwrap.ok)
    assert ["" if right else "unlock it" for right in (seals, opens)] == [
        wrap.remedy,
        unwrap.remedy,
    ]


def test_a_key_that_gives_back_something_else_is_found_out():
    """
    An examination compares what comes back, as wrapping a key of a ring does.
    """
    wrap, unwrap = SealingWrapper(Drawer("oak", lies=True), ENVELOPES).examine()

    assert wrap.ok
    assert not unwrap.ok
    assert "something else" in unwrap.text


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_child_process_makes_a_value_of_its_own():
    """
    What a process made stays with it: the same there, another one in its child.
    """
    held = PerProcess(os.getpid)
    assert os.getpid() == held.get() == held.get()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, str(held.get()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    told = os.read(reading, 100)
    os.close(reading)
    os.waitpid(child, 0)

    assert str(child).encode() == told
    assert os.getpid() == held.get()


_IMPORTED = """
import sys
import kagimori.wrappers.gcp_kms
import kagimori.wrappers.pkcs11
import kagimori.wrappers.vault_transit
print(sorted({"grpc", "google", "hvac", "requests", "pkcs11"} & set(sys.modules)))
"""


def test_no_provider_is_imported_before_it_is_used():
    """
    The adapters are there without their packages, which cost up to a second each.
    """
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    assert "[]" == done.stdout.strip()
