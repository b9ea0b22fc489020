"""
Wrapping by a key of a PKCS#11 token, on SoftHSM.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import closing

import pytest

import kagimori
from kagimori.addresses import Address
from kagimori.errors import ConfigError, KeyWrapError
from kagimori.events import NullSink
from kagimori.keys.protection import xml
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    OTHER_CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers import pkcs11_token
from kagimori.wrappers.pkcs11 import Pkcs11Wrapper, open_wrapper
from kagimori.wrappers.pkcs11_sealing import GCM, KEY_WRAP
from tests.servers.softhsm import PIN, HsmKey


@pytest.fixture(scope="module")
def hsm(softhsm):
    """
    SoftHSM with the keys of these tests.
    """
    softhsm.add_keys(
        ring=[
            HsmKey("kek", "01"),
            HsmKey("other", "02"),
            HsmKey("twin", "03"),
            HsmKey("twin", "04"),
            HsmKey("schlüssel; 鍵", "05"),
            HsmKey("no-encrypt", attributes={"ENCRYPT": False, "WRAP": False}),
            HsmKey("no-decrypt", attributes={"DECRYPT": False, "UNWRAP": False}),
            HsmKey("loose", attributes={"EXTRACTABLE": True, "SENSITIVE": False}),
            HsmKey("short", bits=128),
            HsmKey("mac", kind="GENERIC_SECRET"),
        ],
        removable=[HsmKey("kek")],
        locked=[HsmKey("kek")],
    )
    return softhsm


def wrapper_of(hsm, key="kek", **options):
    given = {"token": "ring", "pin": lambda: PIN, **options}
    return Pkcs11Wrapper(hsm.module, key, **given)


class _OnSoftHsm(KeyWrapperConformance):
    mechanism: str

    @pytest.fixture(autouse=True)
    def _hsm(self, hsm):
        self.hsm = hsm

    def make_wrapper(self, place):
        return wrapper_of(self.hsm, mechanism=self.mechanism)

    def make_other(self, place):
        return wrapper_of(self.hsm, "other", mechanism=self.mechanism)

    def secrets(self):
        return (PIN,)


class TestGcm(_OnSoftHsm):
    mechanism = GCM


class TestKeyWrap(_OnSoftHsm):
    mechanism = KEY_WRAP


# --- keys ------------------------------------------------------------------------------


def test_gcm_is_chosen_where_the_token_has_it(hsm):
    """
    Left out the mechanism is AES-GCM, and either opens what the other one wrapped.
    """
    wrappers = {
        mechanism: wrapper_of(hsm, mechanism=mechanism) for mechanism in (GCM, KEY_WRAP)
    }
    wrapped = {
        name: wrapper.wrap(SECRET, CONTEXT) for name, wrapper in wrappers.items()
    }
    left_out = len(
        xml.parse(wrapper_of(hsm).wrap(SECRET, CONTEXT).child).findtext("dataKey")
    )
    lengths = {
        name: len(xml.parse(one.child).findtext("dataKey"))
        for name, one in wrapped.items()
    }

    assert left_out == lengths[GCM] != lengths[KEY_WRAP]
    assert meaning(SECRET) == meaning(wrappers[GCM].unwrap(wrapped[KEY_WRAP], CONTEXT))
    assert meaning(SECRET) == meaning(wrappers[KEY_WRAP].unwrap(wrapped[GCM], CONTEXT))


@pytest.mark.parametrize("mechanism", [GCM, KEY_WRAP])
def test_entries_of_an_older_key_open_after_a_rotation(hsm, mechanism):
    """
    A new key wraps from now on, and the old one, named by also=, still opens.
    """
    old = wrapper_of(hsm, mechanism=mechanism).wrap(SECRET, CONTEXT)
    turned = wrapper_of(hsm, "other", also=["kek"], mechanism=mechanism)
    new = turned.wrap(SECRET, CONTEXT)

    assert "pkcs11:object=kek;type=secret-key#01" == turned.key_of(old)
    assert "pkcs11:object=other;type=secret-key#02" == turned.key_of(new)
    assert turned.key_of(new) == turned.newest()
    for wrapped in (old, new):
        assert meaning(SECRET) == meaning(turned.unwrap(wrapped, CONTEXT))
    with pytest.raises(KeyWrapError, match="also=LABEL") as caught:
        wrapper_of(hsm, "other").unwrap(old, CONTEXT)
    assert not caught.value.transient


def test_two_keys_of_one_label_are_refused(hsm):
    """
    Which of two keys wraps would be luck: the text names their ids, and with one it works.
    """
    with pytest.raises(KeyWrapError, match="03, 04") as caught:
        wrapper_of(hsm, "twin").wrap(SECRET, CONTEXT)
    assert "key=twin;id=03" in caught.value.hint
    assert not caught.value.transient
    first, second = wrapper_of(hsm, "twin;id=03"), wrapper_of(hsm, "twin;id=04")
    wrapped = first.wrap(SECRET, CONTEXT)

    assert meaning(SECRET) == meaning(first.unwrap(wrapped, CONTEXT))
    with pytest.raises(KeyWrapError):
        second.unwrap(wrapped, CONTEXT)


def test_a_key_is_found_by_its_id(hsm):
    """
    An id alone names a key, and a label of any characters stands in the envelope.
    """
    wrapper = wrapper_of(hsm, ";id=05")
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    assert "object=schl%C3%BCssel%3B%20%E9%8D%B5;" in wrapper.key_of(wrapped)


@pytest.mark.parametrize("key", ["none", "mac", ";id=99"])
def test_a_missing_key_is_told(hsm, key):
    """
    A key that is not there, and one that is not AES, are permanent and say how to make one.
    """
    with pytest.raises(KeyWrapError, match="no AES key") as caught:
        wrapper_of(hsm, key).wrap(SECRET, CONTEXT)
    assert "pkcs11-tool" in caught.value.hint
    assert not caught.value.transient
    assert wrapper_of(hsm).wrap(SECRET, CONTEXT).child


def test_a_key_that_was_destroyed_does_not_open(hsm):
    """
    Entries of a destroyed key say that it is not there; a key made anew opens none of them.
    """
    hsm.add_keys(other=[HsmKey("passing", "0a")])
    wrapper = wrapper_of(hsm, "passing", token="other")
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    hsm.remove_keys("other")

    with pytest.raises(KeyWrapError, match="no AES key passing") as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert not caught.value.transient
    hsm.add_keys(other=[HsmKey("passing", "0a")])
    with pytest.raises(KeyWrapError, match="another key"):
        wrapper.unwrap(wrapped, CONTEXT)
    assert wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)


# --- rights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "mechanism", "attribute"),
    [
        ("no-encrypt", GCM, "CKA_ENCRYPT"),
        ("no-encrypt", KEY_WRAP, "CKA_WRAP"),
        ("no-decrypt", GCM, "CKA_DECRYPT"),
        ("no-decrypt", KEY_WRAP, "CKA_UNWRAP"),
    ],
)
def test_a_missing_attribute_is_named(hsm, key, mechanism, attribute):
    """
    The text names the PKCS#11 attribute that the key lacks; what it may do, it does.
    """
    wrapper = wrapper_of(hsm, key, mechanism=mechanism)
    found = {finding.right: finding for finding in wrapper.examine()}
    missing, given = ("wrap", "unwrap") if "encrypt" in key else ("unwrap", "wrap")

    assert not found[missing].ok
    assert attribute in found[missing].text
    assert found[missing].remedy
    assert found[given].ok
    assert not found[given].remedy


def test_wrapping_without_the_attribute_is_a_permanent_error(hsm):
    """
    Wrapping by a key without CKA_ENCRYPT is refused, by one with it it is not.
    """
    with pytest.raises(KeyWrapError, match="CKA_ENCRYPT") as caught:
        wrapper_of(hsm, "no-encrypt", mechanism=GCM).wrap(SECRET, CONTEXT)
    assert not caught.value.transient
    assert wrapper_of(hsm, "no-decrypt", mechanism=GCM).wrap(SECRET, CONTEXT).child


def test_a_key_that_can_leave_the_token_is_told(hsm):
    """
    An examination warns of an extractable key, which works nevertheless.
    """
    loose = wrapper_of(hsm, "loose").examine()
    firm = wrapper_of(hsm).examine()

    assert [True, True, False] == [finding.ok for finding in loose]
    assert "CKA_EXTRACTABLE" in loose[-1].text
    assert [True, True, True] == [finding.ok for finding in firm]


def test_a_short_key_works(hsm):
    """
    AES-128 keys are the token's business.
    """
    wrapper = wrapper_of(hsm, "short")

    assert wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)


# --- tokens ----------------------------------------------------------------------------


def test_a_missing_token_is_told(hsm):
    """
    A token that never was there is a permanent error that says where to look.
    """
    with pytest.raises(KeyWrapError, match="no token nowhere") as caught:
        wrapper_of(hsm, token="nowhere").wrap(SECRET, CONTEXT)
    assert "pkcs11-tool -L" in caught.value.hint
    assert not caught.value.transient
    assert not any(finding.ok for finding in wrapper_of(hsm, token="no").examine())


def test_two_tokens_of_one_label_need_a_slot(hsm):
    """
    Of two tokens with one label the slot says which is meant.
    """
    with pytest.raises(KeyWrapError, match="Several tokens") as caught:
        wrapper_of(hsm, token="twin").wrap(SECRET, CONTEXT)
    slot = int(caught.value.hint.split("slot=")[1].split(" ")[0])

    with pytest.raises(KeyWrapError, match="no AES key"):
        wrapper_of(hsm, token="twin", slot=slot).wrap(SECRET, CONTEXT)
    with pytest.raises(KeyWrapError, match="There is no slot 999"):
        wrapper_of(hsm, token=None, slot=999).wrap(SECRET, CONTEXT)


def test_a_token_that_is_removed_comes_back(hsm):
    """
    A token that goes away is a passing fault; once back, the same wrapper works.
    """
    wrapper = wrapper_of(hsm, token="removable")
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    with hsm.unplugged():
        with pytest.raises(KeyWrapError, match="gone") as caught:
            wrapper.unwrap(wrapped, CONTEXT)
        assert caught.value.transient

    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    assert wrapper_of(hsm).wrap(SECRET, CONTEXT).child


def test_a_lost_session_is_opened_again(hsm):
    """
    When all sessions are closed from outside, the next call logs in again.
    """
    wrapper = wrapper_of(hsm)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    for module in pkcs11_token._MODULES.values():
        if module.library is not None:
            module.library.reinitialize()

    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_wrong_pin_is_presented_once(hsm):
    """
    A token that refused a PIN is not asked again with it, or it would lock; another works.
    """
    pins = ["000000"]
    wrapper = wrapper_of(hsm, token="locked", pin=lambda: pins[0])
    for _ in range(12):
        with pytest.raises(KeyWrapError, match="refuses the PIN") as caught:
            wrapper.wrap(SECRET, CONTEXT)
        assert not caught.value.transient
        assert "000000" not in str(caught.value)
    pins[0] = PIN

    assert wrapper.wrap(SECRET, CONTEXT).child


def test_a_token_that_does_not_answer_is_given_up(hsm):
    """
    While a module hangs, callers wait for their time and no longer; afterwards it works.
    """
    patient, hasty = wrapper_of(hsm), wrapper_of(hsm, timeout=0.2)
    wrapped = patient.wrap(SECRET, CONTEXT)
    module = pkcs11_token._MODULES[os.getpid(), hsm.module]
    with module.lock, pytest.raises(KeyWrapError, match=r"within 0\.2 s") as caught:
        hasty.unwrap(wrapped, CONTEXT)

    assert caught.value.transient
    assert meaning(SECRET) == meaning(hasty.unwrap(wrapped, CONTEXT))


def test_wrappers_of_one_token_share_its_login(hsm):
    """
    Two wrappers in many threads, one of them failing all the time, do not log each other out.
    """
    good, bad = wrapper_of(hsm), wrapper_of(hsm, "other", also=["kek"])
    wrapped = good.wrap(SECRET, CONTEXT)
    opened = []

    def fail():
        for _ in range(5):
            with pytest.raises(KeyWrapError):
                bad.unwrap(wrapped, OTHER_CONTEXT)

    def work():
        opened.extend(good.unwrap(wrapped, CONTEXT) for _ in range(5))

    threads = [threading.Thread(target=act) for act in (fail, work) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 15 == len(opened)
    assert {meaning(SECRET)} == set(map(meaning, opened))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("mechanism", [GCM, KEY_WRAP])
def test_a_forked_process_logs_in_anew(hsm, mechanism):
    """
    A wrapper that was used before a fork works in children, and goes on in the parent.
    """
    wrapper = wrapper_of(hsm, mechanism=mechanism)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    children, (reading, writing) = [], os.pipe()
    for _ in range(3):
        child = os.fork()
        if not child:
            alike = False
            try:
                opened = wrapper.unwrap(wrapped, CONTEXT)
                again = wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)
                alike = meaning(SECRET) == meaning(opened) == meaning(again)
            finally:
                os.write(writing, b"1" if alike else b"0")
                os._exit(0)
        children.append(child)
    here = wrapper.unwrap(wrapped, CONTEXT)
    for child in children:
        os.waitpid(child, 0)
    os.close(writing)
    told = os.read(reading, 100)
    os.close(reading)

    assert b"111" == told
    assert meaning(SECRET) == meaning(here)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


# --- integrity -------------------------------------------------------------------------


def test_k3_the_token_itself_binds_the_key_id(hsm):
    """
    K3: with GCM the token refuses to open for another key id.
    """
    wrapper = wrapper_of(hsm)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    with pytest.raises(KeyWrapError, match="does not open"):
        wrapper.unwrap(wrapped, OTHER_CONTEXT)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_the_same_key_in_another_token_is_another_key(hsm):
    """
    What a key of the same name in another token wrapped is refused for good.
    """
    hsm.remove_keys("other")
    hsm.add_keys(other=[HsmKey("kek", "01")])
    wrapped = wrapper_of(hsm).wrap(SECRET, CONTEXT)
    elsewhere = wrapper_of(hsm, "kek;id=01", token="other")

    with pytest.raises(KeyWrapError, match="another key"):
        elsewhere.unwrap(wrapped, CONTEXT)
    assert elsewhere.unwrap(elsewhere.wrap(SECRET, CONTEXT), CONTEXT)


def test_k9_a_failing_call_shows_neither_pin_nor_data_key(hsm):
    """
    K9: the traceback of a failure chains nothing of the call that failed.
    """
    wrapper = wrapper_of(hsm)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    with pytest.raises(KeyWrapError) as caught:
        wrapper.unwrap(wrapped, OTHER_CONTEXT)
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.detail
    assert PIN not in shown
    assert "pkcs11.exceptions" not in shown


# --- addresses -------------------------------------------------------------------------


def opened(hsm, query):
    address = Address.parse(f"pkcs11:{hsm.module}?{query}")
    return open_wrapper(address, NullSink())


def test_the_pin_comes_from_the_environment_or_a_file(hsm, monkeypatch, tmp_path):
    """
    pin-env= and pin-file= name the PIN; without one the keys are not seen.
    """
    monkeypatch.setenv("HSM_PIN", PIN)
    (tmp_path / "pin").write_text(f"{PIN}\n")
    (tmp_path / "pin").chmod(0o600)
    wrapped = opened(hsm, "token=ring&key=kek&pin-env=HSM_PIN").wrap(SECRET, CONTEXT)
    other = opened(hsm, f"token=ring&key=other&also=kek&pin-file={tmp_path}/pin")

    assert meaning(SECRET) == meaning(other.unwrap(wrapped, CONTEXT))
    assert "PKCS#11 key other of token ring" == other.name


@pytest.mark.parametrize(
    "query",
    [
        "",
        "token=ring",
        "key=kek",
        "token=ring&key=",
        "token=ring&key=kek;id=0",
        "token=ring&key=kek;id=xy",
        "token=ring&key=kek&slot=one",
        "token=ring&key=kek&mechanism=aes-ecb",
        "token=ring&key=kek&also=",
        "token=ring&token=other&key=kek",
        "token=ring&key=kek&pin-env=NO_SUCH_VARIABLE",
        "token=ring&key=kek&pin-file=/no/such/file",
        "token=ring&key=kek&user=so",
    ],
)
def test_a_malformed_address_is_refused(hsm, query):
    """
    A missing token or key, an unknown option and a PIN that is not there are refused.
    """
    with pytest.raises(ConfigError):
        opened(hsm, query)


def test_a_module_that_is_none_is_told(hsm, tmp_path):
    """
    A missing library is refused at once, a file that is none when it is used.
    """
    with pytest.raises(ConfigError, match="no PKCS#11 module"):
        Pkcs11Wrapper(tmp_path / "none.so", "kek", token="ring")
    (tmp_path / "text.so").write_text("hello")
    broken = Pkcs11Wrapper(tmp_path / "text.so", "kek", token="ring")
    with pytest.raises(KeyWrapError, match="cannot be loaded") as caught:
        broken.wrap(SECRET, CONTEXT)
    assert not caught.value.transient
    with pytest.raises(ConfigError, match="absolute"):
        open_wrapper(Address.parse("pkcs11:module.so?token=a&key=b"), NullSink())


def test_a_ring_is_made_and_opened_again(hsm, tmp_path, monkeypatch):
    """
    A ring in a folder is wrapped by the token, and opened by another wrapper of the token.
    """
    monkeypatch.setenv("HSM_PIN", PIN)
    wrapper = f"pkcs11:{hsm.module}?token=ring&key=kek&pin-env=HSM_PIN"
    place = f"file://{tmp_path}/ring"
    with closing(
        kagimori.open_ring(place, application="shop", wrapper=wrapper)
    ) as ring:
        token = ring.protector("cart").protect(b"42")
    with closing(
        kagimori.open_ring(place, application="shop", wrapper=wrapper)
    ) as ring:
        opened = ring.protector("cart").unprotect(token)

    assert b"42" == opened.payload


def test_a_pin_that_is_no_text_is_refused(hsm, tmp_path):
    """
    A PIN file that holds no UTF-8 is refused, one that does is read.
    """
    file = tmp_path / "pin"
    file.write_bytes(b"\xff\xfe")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="UTF-8"):
        opened(hsm, f"token=ring&key=kek&pin-file={file}")
    file.write_text(PIN)

    assert opened(hsm, f"token=ring&key=kek&pin-file={file}").wrap(SECRET, CONTEXT)


def test_without_the_package_the_extra_is_named(hsm, monkeypatch):
    """
    Opening needs no package; using it without the package names the extra to install.
    """
    wrapper = wrapper_of(hsm)
    monkeypatch.setitem(sys.modules, "pkcs11", None)

    with pytest.raises(ConfigError, match="not installed") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert "kagimori[pkcs11]" in caught.value.hint
