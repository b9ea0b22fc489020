"""
Wrapping by the transit engine of Vault and OpenBao, against our double of it.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import traceback
from base64 import b64encode
from contextlib import closing

import pytest
import trustme

import kagimori
from kagimori.addresses import Address
from kagimori.errors import ConfigError, InsecureConfigError, KeyWrapError
from kagimori.events import NullSink
from kagimori.keys.protection import xml
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    MASTER,
    OTHER_CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers.vault_transit import VaultTransitWrapper, open_wrapper
from tests.doubles.vault_transit import AnswerError, Vault, serving

pytestmark = pytest.mark.double

TOKEN = "hvs.test-token"


@pytest.fixture(scope="module")
def server():
    with serving(Vault()) as vault:
        yield vault


@pytest.fixture
def vault(server):
    """
    The double with two keys of one version, everything allowed and no fault to come.
    """
    fresh = Vault()
    fresh.held, fresh.port = server.held, server.port
    server.held.set()
    vars(server).update(vars(fresh))
    server.create("ring")
    server.create("other")
    return server


def wrapper_of(vault, key="ring", token=TOKEN, **options):
    url = f"{vault.url}/{vault.mount}/{key}"
    return VaultTransitWrapper(url, token=token.encode, **options)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestVaultTransitWrapper(KeyWrapperConformance):
    @pytest.fixture(autouse=True)
    def _vault(self, vault):
        self.vault = vault

    def make_wrapper(self, place):
        return wrapper_of(self.vault)

    def make_other(self, place):
        return wrapper_of(self.vault, "other")

    def secrets(self):
        return (TOKEN,)


# --- versions --------------------------------------------------------------------------


def test_entries_of_an_older_version_open_after_a_rotation(vault):
    """
    After the key is rotated, new envelopes name the new version and old ones still open.
    """
    wrapper = wrapper_of(vault)
    old = wrapper.wrap(SECRET, CONTEXT)
    vault.keys["ring"].rotate()
    new = wrapper.wrap(SECRET, CONTEXT)

    assert "transit/ring#1" == wrapper.key_of(old)
    assert "transit/ring#2" == wrapper.key_of(new) == wrapper.newest()
    for wrapped in (old, new):
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_another_key_takes_over(vault):
    """
    The key that wrapped before opens, named by also=, and is examined; without that it is not.
    """
    old = wrapper_of(vault).wrap(SECRET, CONTEXT)
    both = wrapper_of(vault, "other", also=["ring"])

    assert meaning(SECRET) == meaning(both.unwrap(old, CONTEXT))
    assert "transit/other#1" == both.key_of(both.wrap(SECRET, CONTEXT))
    assert [True, True, True] == [finding.ok for finding in both.examine()]
    vault.policy["decrypt/ring"] = set()
    assert [True, True, False] == [finding.ok for finding in both.examine()]
    with pytest.raises(KeyWrapError, match="names transit/ring"):
        wrapper_of(vault, "other").unwrap(old, CONTEXT)


def test_a_version_below_the_minimum_is_told_with_its_remedy(vault):
    """
    min_decryption_version closes old entries with a text that names it; newer ones open.
    """
    wrapper = wrapper_of(vault)
    old = wrapper.wrap(SECRET, CONTEXT)
    vault.keys["ring"].rotate()
    new = wrapper.wrap(SECRET, CONTEXT)
    vault.keys["ring"].min_decryption_version = 2

    with pytest.raises(KeyWrapError, match="min_decryption_version") as caught:
        wrapper.unwrap(old, CONTEXT)
    assert "rewrap" in caught.value.hint
    assert not caught.value.transient
    assert meaning(SECRET) == meaning(wrapper.unwrap(new, CONTEXT))
    vault.keys["ring"].min_decryption_version = 1
    assert meaning(SECRET) == meaning(wrapper.unwrap(old, CONTEXT))


def test_a_key_that_was_made_anew_does_not_open(vault):
    """
    A key deleted and made again under its name opens nothing: permanent, and told.
    """
    wrapper = wrapper_of(vault)
    vault.keys["ring"].rotate()
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.create("ring")

    with pytest.raises(KeyWrapError, match="another key") as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert not caught.value.transient


def test_an_old_vault_that_answers_500_for_an_altered_text_is_understood(vault):
    """
    Vault 1.4 to 1.6 answered 500 where a tag did not verify; that is no passing fault.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    text = "1 error occurred:\n\t* cipher: message authentication failed\n\n"
    vault.faults.append(AnswerError(500, text))

    with pytest.raises(KeyWrapError, match="does not open") as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert not caught.value.transient


def test_a_moved_mount_still_opens(vault):
    """
    The name in an envelope is not where it is opened: after a move of the mount it opens.
    """
    wrapped = wrapper_of(vault).wrap(SECRET, CONTEXT)
    vault.mount = "crypto/transit"
    moved = wrapper_of(vault)

    assert meaning(SECRET) == meaning(moved.unwrap(wrapped, CONTEXT))
    assert "crypto/transit/ring#1" == moved.key_of(moved.wrap(SECRET, CONTEXT))


# --- rights ----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["encrypt", "decrypt"])
def test_a_missing_capability_is_named(vault, verb):
    """
    The text names path and capability, the hint the line of the policy; the other works.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.policy[f"{verb}/ring"] = set()
    calls = {
        "encrypt": lambda: wrapper.wrap(SECRET, CONTEXT),
        "decrypt": lambda: wrapper.unwrap(wrapped, CONTEXT),
    }

    with pytest.raises(KeyWrapError) as caught:
        calls.pop(verb)()
    assert f"capability update on transit/{verb}/ring" in caught.value.text
    assert f'path "transit/{verb}/ring"' in caught.value.hint
    assert not caught.value.transient
    assert calls.popitem()[1]()


@pytest.mark.parametrize(
    "missing", [(), ("encrypt",), ("decrypt",), ("encrypt", "decrypt")]
)
def test_each_right_is_examined_by_itself(vault, missing):
    """
    An examination finds each missing capability, whether or not the other one is there.
    """
    for verb in missing:
        vault.policy[f"{verb}/ring"] = set()
    found = {finding.right: finding for finding in wrapper_of(vault).examine()}

    for right, verb in (("wrap", "encrypt"), ("unwrap", "decrypt")):
        assert found[right].ok is (verb not in missing)
        assert (f"transit/{verb}/ring" in found[right].text) is (verb in missing)
        assert bool(found[right].remedy) is (verb in missing)


def test_an_expired_token_is_told_apart_from_a_missing_capability(vault):
    """
    Where the server does not know the token, the text says that and no capability.
    """
    wrapper = wrapper_of(vault, token="hvs.expired")

    with pytest.raises(KeyWrapError, match="does not know the token") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert "token-file" in caught.value.hint
    assert "hvs.expired" not in str(caught.value) + caught.value.detail


def test_an_older_server_that_does_not_know_the_token_is_asked(vault):
    """
    Before Vault 1.13 the answer was the same for both; whether it knows the token is asked.
    """
    wrapper = wrapper_of(vault, token="hvs.expired")
    vault.is_recent = False

    with pytest.raises(KeyWrapError, match="does not know the token"):
        wrapper.wrap(SECRET, CONTEXT)
    assert "auth/token/lookup-self" == vault.calls[-1]


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "schlüssel"])
def test_what_is_no_token_is_not_sent(vault, token):
    """
    A token that no header can hold is refused here, without being quoted.
    """
    with pytest.raises(KeyWrapError, match="token") as caught:
        wrapper_of(vault, token=token).wrap(SECRET, CONTEXT)
    assert [] == vault.calls
    assert not token or token not in str(caught.value)


def test_a_missing_key_is_told_and_not_made(vault):
    """
    With a policy that lets encrypting make keys, a mistyped name makes none.
    """
    vault.policy |= {"encrypt/rinq": {"create", "update"}, "decrypt/rinq": {"update"}}

    with pytest.raises(KeyWrapError, match="no transit key transit/rinq") as caught:
        wrapper_of(vault, "rinq").wrap(SECRET, CONTEXT)
    assert "vault write -f transit/keys/rinq" in caught.value.hint
    assert {"ring", "other"} == set(vault.keys)
    assert wrapper_of(vault).wrap(SECRET, CONTEXT).child


def test_a_missing_engine_is_told(vault):
    """
    A mount that is not there says so.
    """
    wrapper = VaultTransitWrapper(f"{vault.url}/nowhere/ring", token=TOKEN.encode)

    with pytest.raises(KeyWrapError, match="no transit engine at nowhere"):
        wrapper.wrap(SECRET, CONTEXT)


@pytest.mark.parametrize("options", [{"type": "rsa-2048"}, {"derived": True}])
def test_a_key_of_another_type_is_told(vault, options):
    """
    An RSA key and a derived one are refused with the type to make instead.
    """
    vault.create("ring", **options)

    with pytest.raises(KeyWrapError, match="type") as caught:
        wrapper_of(vault).wrap(SECRET, CONTEXT)
    assert "aes256-gcm96" in caught.value.hint


def test_a_namespace_is_sent(vault):
    """
    The key of a namespace is reached with it, and not without.
    """
    vault.namespace = "team/shop"
    wrapper = wrapper_of(vault, namespace="team/shop/")
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    assert "team/shop/transit/ring#1" == wrapper.key_of(wrapped)
    with pytest.raises(KeyWrapError, match="namespace"):
        wrapper_of(vault).unwrap(wrapped, CONTEXT)


# --- what passes by itself ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("9e99", 86400),
        ("soon", None),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 0),
    ],
)
def test_throttling_is_passing_and_says_how_long_to_wait(vault, header, seconds):
    """
    429 is transient, carries Retry-After in either form, and is not retried.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.calls.clear()
    vault.throttle(header)

    with pytest.raises(KeyWrapError, match="throttled") as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert caught.value.transient
    assert seconds == caught.value.retry_after
    assert 1 == len(vault.calls)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_sealed_vault_is_passing(vault):
    """
    Sealed is transient and names the command; unsealed, the same wrapper works.
    """
    wrapper = wrapper_of(vault)
    vault.is_sealed = True

    with pytest.raises(KeyWrapError, match="sealed") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient
    assert "vault operator unseal" in caught.value.hint
    vault.is_sealed = False
    assert wrapper.wrap(SECRET, CONTEXT).child


@pytest.mark.parametrize(
    ("status", "transient"), [(500, True), (502, True), (473, True), (418, False)]
)
def test_other_answers_are_faults(vault, status, transient):
    """
    A server's own trouble is transient; what no server of this kind says is not.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.faults.append(AnswerError(status, "local node not active"))

    with pytest.raises(KeyWrapError) as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert transient is caught.value.transient


def test_a_redirection_does_not_get_the_token(vault):
    """
    A redirection is not followed: another server would be given the token.
    """
    with serving(Vault()) as elsewhere:
        wrapper = wrapper_of(vault)
        vault.faults.append(AnswerError(307, Location=f"{elsewhere.url}/v1/x"))

        with pytest.raises(KeyWrapError, match="token is not given") as caught:
            wrapper.wrap(SECRET, CONTEXT)
        assert caught.value.transient
        assert [] == elsewhere.calls


def test_a_server_that_is_slow_is_given_up(vault):
    """
    A call that is not answered in time is a transient error, and is not repeated.
    """
    wrapper = wrapper_of(vault, timeout=0.2)
    vault.held.clear()

    with pytest.raises(KeyWrapError, match=r"within 0\.2 s") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient
    assert 1 == len(vault.calls)
    vault.held.set()
    assert wrapper_of(vault).wrap(SECRET, CONTEXT).child


def test_a_server_that_is_down_at_first_and_again_later():
    """
    Down at start is transient; once up the same wrapper works; down again is transient.
    """
    port = free_port()
    vault = Vault()
    vault.port = port
    vault.create("ring")
    wrapper = wrapper_of(vault)
    with pytest.raises(KeyWrapError) as before:
        wrapper.wrap(SECRET, CONTEXT)
    with serving(vault, port):
        wrapped = wrapper.wrap(SECRET, CONTEXT)
    with pytest.raises(KeyWrapError) as after:
        wrapper.unwrap(wrapped, CONTEXT)

    assert before.value.transient
    assert after.value.transient
    assert "cannot be reached" in after.value.text
    with serving(vault, port):
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


# --- integrity -------------------------------------------------------------------------


def test_k3_the_engine_itself_binds_the_key_id(vault):
    """
    K3: the key's id is the engine's associated data.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    with pytest.raises(KeyWrapError, match="does not open"):
        wrapper.unwrap(wrapped, OTHER_CONTEXT)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_ring_cannot_send_us_elsewhere(vault):
    """
    Whatever an envelope names, only the configured key is asked, and says that it is another.
    """
    foreign = wrapper_of(vault, "other").wrap(SECRET, CONTEXT)
    vault.calls.clear()

    with pytest.raises(KeyWrapError, match="names transit/other"):
        wrapper_of(vault).unwrap(foreign, CONTEXT)
    assert ["transit/decrypt/ring"] == vault.calls


@pytest.mark.parametrize(
    "raw",
    [b"vault:v0:AAAA", b"vault:v1:", b"\xff\x00", b"vault:v1:AA AA", b"hmac:v1:AAAA"],
)
def test_what_is_no_ciphertext_is_not_sent(vault, raw):
    """
    An envelope without a ciphertext of the engine's form is refused before anything is sent.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    root = xml.parse(wrapped.child)
    root.find("dataKey").text = b64encode(raw).decode()
    vault.calls.clear()

    with pytest.raises(KeyWrapError):
        wrapper.unwrap(type(wrapped)(wrapped.decryptor_type, xml.write(root)), CONTEXT)
    assert [] == vault.calls


def test_k9_a_failing_call_shows_neither_token_nor_data_key(vault):
    """
    K9: the traceback of a failure holds nothing of the call that failed.
    """
    wrapper = wrapper_of(vault)
    vault.faults.extend([AnswerError(400, f"{TOKEN} {MASTER.hex()}")] * 2)

    with pytest.raises(KeyWrapError) as caught:
        wrapper.wrap(SECRET, CONTEXT)
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.detail
    assert MASTER.hex() not in shown
    assert TOKEN not in shown.replace(__file__, "")


def test_one_call_for_each_envelope(vault):
    """
    Unwrapping costs one call; wrapping too, once it is known that the key is there.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.calls.clear()
    wrapper.wrap(SECRET, CONTEXT)
    wrapper.unwrap(wrapped, CONTEXT)

    assert ["transit/encrypt/ring", "transit/decrypt/ring"] == vault.calls


# --- addresses, tokens, processes --------------------------------------------------------


def opened(vault, options="", key="ring"):
    text = f"vault:{vault.url}/transit/{key}{options}"
    return open_wrapper(Address.parse(text), NullSink())


def test_the_token_comes_from_the_environment(vault, monkeypatch):
    """
    Left out it is VAULT_TOKEN; another variable can be named.
    """
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    monkeypatch.setenv("RING_TOKEN", "hvs.another")

    assert opened(vault).wrap(SECRET, CONTEXT).child
    with pytest.raises(KeyWrapError, match="does not know"):
        opened(vault, "?token-env=RING_TOKEN").wrap(SECRET, CONTEXT)
    monkeypatch.delenv("VAULT_TOKEN")
    with pytest.raises(ConfigError, match="VAULT_TOKEN"):
        opened(vault)


def test_a_renewed_token_file_is_seen(vault, tmp_path):
    """
    The file of a token is read for each call: what Vault Agent writes there is used at once.
    """
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    wrapper = opened(vault, f"?token-file={file}")
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.tokens = {"hvs.renewed"}
    with pytest.raises(KeyWrapError, match="does not know"):
        wrapper.unwrap(wrapped, CONTEXT)
    file.write_text("hvs.renewed\n")

    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    file.unlink()
    with pytest.raises(KeyWrapError) as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert caught.value.transient
    with pytest.raises(ConfigError):
        opened(vault, f"?token-file={file}")


def test_tls_is_verified(vault, tmp_path):
    """
    A server with a certificate of an own authority is asked with ca= and refused without.
    """
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(pem)
    secure = Vault()
    secure.create("ring")
    with serving(secure, tls=context):
        trusting = wrapper_of(secure, ca=pem)
        wrapped = trusting.wrap(SECRET, CONTEXT)
        with pytest.raises(KeyWrapError, match="not trusted") as caught:
            wrapper_of(secure).wrap(SECRET, CONTEXT)

        assert meaning(SECRET) == meaning(trusting.unwrap(wrapped, CONTEXT))
        assert "ca=" in caught.value.hint
        assert not caught.value.transient
    with pytest.raises(ConfigError, match="authorities"):
        wrapper_of(secure, ca=tmp_path / "none.pem").wrap(SECRET, CONTEXT)


@pytest.mark.parametrize(
    "address",
    [
        "vault:",
        "vault:ring",
        "vault:https://vault:8200",
        "vault:https://vault:8200/ring",
        "vault:https://vault:8200/transit/",
        "vault:https://vault:8200/transit/../sys/raw/x/..",
        "vault:https://vault:8200/transit/a%2Fb%20c",
        "vault:https://me:word@vault:8200/transit/ring",
        "vault:https://vault:no/transit/ring",
        "vault:https://[::1/transit/ring",
        "vault:ftp://vault/transit/ring",
        "vault:http://vault:8200/transit/ring",
        "vault:https://vault:8200/transit/ring?region=eu",
        "vault:https://vault:8200/transit/ring?namespace=a%0Ab",
        "vault:https://vault:8200/transit/ring?token-env=A&token-file=/b",
        "vault:https://vault:8200/transit/ring?ca=relative.pem",
        "vault:https://vault:8200/transit/ring?also=a/b",
    ],
)
def test_a_malformed_address_is_refused(address, monkeypatch):
    """
    Half an address, a path that leaves the engine, an unknown option and clear text elsewhere.
    """
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    monkeypatch.setenv("A", TOKEN)
    with pytest.raises(ConfigError) as caught:
        open_wrapper(Address.parse(address), NullSink())
    assert "word" not in str(caught.value)


def test_an_address_in_the_clear_is_for_this_machine_only():
    """
    Over TLS any host will do, in the clear only this one.
    """
    assert VaultTransitWrapper("https://vault:8200/transit/ring", token=TOKEN.encode)
    with pytest.raises(InsecureConfigError):
        VaultTransitWrapper("http://vault:8200/transit/ring", token=TOKEN.encode)


def test_the_environments_proxy_and_passwords_are_left_out(
    vault, monkeypatch, tmp_path
):
    """
    What is meant for this machine passes by a proxy, and no ~/.netrc adds a password.
    """
    (tmp_path / "netrc").write_text("machine localhost login me password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")

    assert wrapper_of(vault).wrap(SECRET, CONTEXT).child


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_makes_connections_of_its_own(vault):
    """
    A wrapper that was used before a fork works in the child and goes on in the parent.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        alike = False
        try:
            alike = meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
        finally:
            os.write(writing, b"alike" if alike else b"different")
            os._exit(0)
    os.close(writing)
    told = os.read(reading, 100)
    os.close(reading)
    os.waitpid(child, 0)

    assert b"alike" == told
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_ring_is_made_and_opened_again(vault, tmp_path, monkeypatch):
    """
    A ring in a folder is wrapped by the key, and opens with one call for its key.
    """
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    wrapper = f"vault:{vault.url}/transit/ring?also=other"
    place = f"file://{tmp_path}/ring"
    with closing(
        kagimori.open_ring(place, application="shop", wrapper=wrapper)
    ) as ring:
        token = ring.protector("cart").protect(b"42")
    vault.keys["ring"].rotate()
    vault.calls.clear()
    with closing(
        kagimori.open_ring(place, application="shop", wrapper=wrapper)
    ) as ring:
        opened = ring.protector("cart").unprotect(token)

    assert b"42" == opened.payload
    assert ["transit/decrypt/ring"] == vault.calls


def test_without_the_package_the_extra_is_named(monkeypatch):
    """
    Opening needs no package; using it without the package names the extra to install.
    """
    wrapper = VaultTransitWrapper("https://vault/transit/ring", token=TOKEN.encode)
    monkeypatch.setitem(sys.modules, "hvac", None)

    with pytest.raises(ConfigError, match="not installed") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert "kagimori[vault]" in caught.value.hint


def test_what_is_no_vault_is_told(vault):
    """
    An answer of another program is permanent, and says to check the address.
    """
    wrapper = wrapper_of(vault)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    vault.keys["ring"].decrypt = lambda *_: b"short"

    with pytest.raises(KeyWrapError):
        wrapper.unwrap(wrapped, CONTEXT)
    vault.keys["ring"].encrypt = lambda *_: "hello"
    with pytest.raises(KeyWrapError, match="none of a transit engine"):
        wrapper.wrap(SECRET, CONTEXT)
