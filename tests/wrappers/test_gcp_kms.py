"""
Wrapping by Google Cloud KMS, through the official client, against our double of the service.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import traceback
from contextlib import closing

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import kagimori
from kagimori.addresses import Address
from kagimori.errors import ConfigError, InsecureConfigError, KeyWrapError
from kagimori.events import NullSink
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    MASTER,
    OTHER_CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers.gcp_client import maker
from kagimori.wrappers.gcp_kms import GcpKmsWrapper, crc32c, open_wrapper
from tests.doubles.gcp_kms import GcpKms, RefusalError, serving

pytestmark = pytest.mark.double

PLACE = "projects/shop/locations/europe-west3/keyRings/rings/cryptoKeys"
RING, OTHER = f"{PLACE}/ring", f"{PLACE}/other"
ENCRYPT = "cloudkms.cryptoKeyVersions.useToEncrypt"
DECRYPT = "cloudkms.cryptoKeyVersions.useToDecrypt"


@pytest.fixture(scope="module")
def server():
    with serving(GcpKms()) as service:
        yield service


@pytest.fixture
def kms(server):
    """
    The double with one key of one version, everything allowed and no fault to come.
    """
    fresh = GcpKms()
    fresh.held, fresh.port = server.held, server.port
    server.held.set()
    vars(server).update(vars(fresh))
    server.create(RING)
    server.create(OTHER)
    return server


def wrapper_of(kms, key=RING, **options):
    return GcpKmsWrapper(key, endpoint=kms.endpoint, **options)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestGcpKmsWrapper(KeyWrapperConformance):
    @pytest.fixture(autouse=True)
    def _kms(self, kms):
        self.kms = kms

    def make_wrapper(self, place):
        return wrapper_of(self.kms)

    def make_other(self, place):
        return wrapper_of(self.kms, OTHER)


# --- versions --------------------------------------------------------------------------


def test_entries_of_an_older_version_open_after_a_rotation(kms):
    """
    After the key is rotated, new envelopes name the new version and old ones still open.
    """
    wrapper = wrapper_of(kms)
    old = wrapper.wrap(SECRET, CONTEXT)
    kms.keys[RING].rotate()
    new = wrapper.wrap(SECRET, CONTEXT)

    assert f"{RING}/cryptoKeyVersions/1" == wrapper.key_of(old)
    assert f"{RING}/cryptoKeyVersions/2" == wrapper.key_of(new) == wrapper.newest()
    for wrapped in (old, new):
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_version_may_be_named_for_wrapping(kms):
    """
    An address with a version wraps by that one, and still opens what others wrapped.
    """
    kms.keys[RING].rotate()
    latest = wrapper_of(kms).wrap(SECRET, CONTEXT)
    pinned = wrapper_of(kms, f"{RING}/cryptoKeyVersions/1")

    assert f"{RING}/cryptoKeyVersions/1" == pinned.newest()
    assert f"{RING}/cryptoKeyVersions/1" == pinned.key_of(pinned.wrap(SECRET, CONTEXT))
    assert meaning(SECRET) == meaning(pinned.unwrap(latest, CONTEXT))


def test_another_key_takes_over(kms):
    """
    The key that wrapped before opens, named by also=, and is examined; without that it is not.
    """
    old = wrapper_of(kms).wrap(SECRET, CONTEXT)
    both = wrapper_of(kms, OTHER, also=[RING])

    assert meaning(SECRET) == meaning(both.unwrap(old, CONTEXT))
    assert f"{OTHER}/cryptoKeyVersions/1" == both.key_of(both.wrap(SECRET, CONTEXT))
    assert [True, True, True] == [finding.ok for finding in both.examine()]
    del kms.keys[RING]
    assert [True, True, False] == [finding.ok for finding in both.examine()]
    with pytest.raises(KeyWrapError, match=RING) as caught:
        wrapper_of(kms, OTHER).unwrap(old, CONTEXT)
    assert "also=" in caught.value.hint


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("DISABLED", "Enable it again"),
        ("DESTROY_SCHEDULED", "Restore it"),
        ("DESTROYED", "backup"),
    ],
)
def test_a_version_that_is_not_enabled_is_told_with_its_remedy(kms, state, remedy):
    """
    A disabled or destroyed version says so for what it wrapped; the other one goes on.
    """
    wrapper = wrapper_of(kms)
    old = wrapper.wrap(SECRET, CONTEXT)
    kms.keys[RING].rotate()
    new = wrapper.wrap(SECRET, CONTEXT)
    kms.keys[RING].states[0] = state

    with pytest.raises(KeyWrapError, match=state) as caught:
        wrapper.unwrap(old, CONTEXT)
    assert remedy in caught.value.hint
    assert not caught.value.transient
    assert meaning(SECRET) == meaning(wrapper.unwrap(new, CONTEXT))


def test_a_disabled_primary_version_wraps_nothing(kms):
    """
    With the primary version disabled nothing is wrapped; enabled again it is.
    """
    wrapper = wrapper_of(kms)
    kms.keys[RING].states[0] = "DISABLED"

    with pytest.raises(KeyWrapError, match=r"encrypt.*DISABLED"):
        wrapper.wrap(SECRET, CONTEXT)
    kms.keys[RING].states[0] = "ENABLED"
    assert wrapper.wrap(SECRET, CONTEXT).child


# --- rights ----------------------------------------------------------------------------


@pytest.mark.parametrize("permission", [ENCRYPT, DECRYPT])
def test_a_missing_permission_is_named(kms, permission):
    """
    The text names the IAM permission that is missing, the hint the role; the other works.
    """
    wrapper = wrapper_of(kms)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    kms.permissions.discard(permission)
    calls = {
        ENCRYPT: lambda: wrapper.wrap(SECRET, CONTEXT),
        DECRYPT: lambda: wrapper.unwrap(wrapped, CONTEXT),
    }

    with pytest.raises(KeyWrapError) as caught:
        calls.pop(permission)()
    assert permission in caught.value.text
    assert "roles/cloudkms.cryptoKeyEncrypterDecrypter" in caught.value.hint
    assert not caught.value.transient
    assert calls.popitem()[1]()


@pytest.mark.parametrize("missing", [set(), {ENCRYPT}, {DECRYPT}, {ENCRYPT, DECRYPT}])
def test_each_right_is_examined_by_itself(kms, missing):
    """
    An examination finds each missing permission, whether or not the other one is there.
    """
    kms.permissions -= missing
    found = {finding.right: finding for finding in wrapper_of(kms).examine()}

    for right, permission in (("wrap", ENCRYPT), ("unwrap", DECRYPT)):
        assert found[right].ok is (permission not in missing)
        assert (permission in found[right].text) is (permission in missing)
        assert bool(found[right].remedy) is (permission in missing)


def test_a_project_without_the_api_is_told_how_to_enable_it(kms):
    """
    Where the Cloud KMS API is not enabled, the hint is to enable it and not to grant a role.
    """
    from google.rpc import error_details_pb2

    reason = error_details_pb2.ErrorInfo(reason="SERVICE_DISABLED")
    kms.faults.append(RefusalError("PERMISSION_DENIED", "API not used before", reason))

    with pytest.raises(KeyWrapError) as caught:
        wrapper_of(kms).wrap(SECRET, CONTEXT)
    assert "gcloud services enable cloudkms.googleapis.com" in caught.value.hint


def test_a_key_that_is_not_there_is_told(kms):
    """
    A missing key, and a key of another purpose, are permanent errors that say what to check.
    """
    with pytest.raises(KeyWrapError, match="no Google Cloud KMS") as missing:
        wrapper_of(kms, f"{PLACE}/none").wrap(SECRET, CONTEXT)
    kms.keys[OTHER].purpose = "ASYMMETRIC_SIGN"
    with pytest.raises(KeyWrapError) as signing:
        wrapper_of(kms, OTHER).wrap(SECRET, CONTEXT)

    assert not missing.value.transient
    assert "ENCRYPT_DECRYPT" in signing.value.hint


def test_an_unknown_identity_is_told_how_to_sign_in(kms):
    """
    Without valid credentials the hint says where they come from.
    """
    kms.faults.append(RefusalError("UNAUTHENTICATED", "Invalid credentials."))

    with pytest.raises(KeyWrapError) as caught:
        wrapper_of(kms).wrap(SECRET, CONTEXT)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint


# --- what passes by itself ---------------------------------------------------------------


@pytest.mark.parametrize("seconds", [None, 0.5, 17])
def test_throttling_is_passing_and_says_how_long_to_wait(kms, seconds):
    """
    RESOURCE_EXHAUSTED is transient, carries the delay that Google names, and is not retried.
    """
    wrapper = wrapper_of(kms)
    kms.throttle(seconds)

    with pytest.raises(KeyWrapError, match="throttled") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient
    assert seconds == caught.value.retry_after
    assert 1 == len(kms.calls)
    assert wrapper.wrap(SECRET, CONTEXT).child


def test_one_more_try_follows_where_nothing_was_answered(kms):
    """
    One UNAVAILABLE goes unnoticed, two of them are a transient error.
    """
    wrapper = wrapper_of(kms)
    kms.faults.append(RefusalError("UNAVAILABLE", "try again"))
    assert wrapper.wrap(SECRET, CONTEXT).child
    kms.faults.extend([RefusalError("UNAVAILABLE", "try again")] * 2)

    with pytest.raises(KeyWrapError) as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient
    assert 4 == len(kms.calls)


def test_an_endpoint_that_is_slow_is_given_up(kms):
    """
    A call that is not answered in time is a transient error, and the next one works.
    """
    wrapper = wrapper_of(kms, timeout=0.3)
    kms.held.clear()

    with pytest.raises(KeyWrapError, match=r"within 0\.3 s") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient
    kms.held.set()
    assert wrapper_of(kms).wrap(SECRET, CONTEXT).child


def test_an_endpoint_that_is_down_at_first_and_again_later():
    """
    Down at start is transient; once up the same wrapper works; down again is transient.
    """
    port = free_port()
    service = GcpKms()
    service.create(RING)
    wrapper = GcpKmsWrapper(RING, endpoint=f"http://127.0.0.1:{port}")
    with pytest.raises(KeyWrapError) as before:
        wrapper.wrap(SECRET, CONTEXT)
    with serving(service, port):
        wrapped = answered(lambda: wrapper.wrap(SECRET, CONTEXT))
    with pytest.raises(KeyWrapError) as after:
        wrapper.unwrap(wrapped, CONTEXT)

    assert before.value.transient
    assert after.value.transient
    assert "reached" in after.value.text
    with serving(service, port):
        assert meaning(SECRET) == meaning(
            answered(lambda: wrapper.unwrap(wrapped, CONTEXT))
        )


def answered(call):
    """
    Call until the channel has noticed that the endpoint is back: two seconds at most.
    """
    for _ in range(100_000):
        try:
            return call()
        except KeyWrapError as error:
            if not error.transient:
                raise
    return call()


# --- integrity -------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["ciphertext", "unverified"])
def test_what_was_damaged_on_the_way_is_not_stored(kms, field):
    """
    A wrong CRC32C, or one that the service did not verify, is refused after one more try.
    """
    wrapper = wrapper_of(kms)
    kms.corrupt.add(field)

    with pytest.raises(KeyWrapError, match="CRC32C") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert caught.value.transient
    assert 2 == len(kms.calls)
    kms.corrupt.clear()
    assert wrapper.wrap(SECRET, CONTEXT).child


def test_what_was_damaged_on_the_way_is_not_opened(kms):
    """
    A data key whose CRC32C is wrong is not used.
    """
    wrapper = wrapper_of(kms)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    kms.corrupt.add("plaintext")

    with pytest.raises(KeyWrapError, match="CRC32C") as caught:
        wrapper.unwrap(wrapped, CONTEXT)
    assert caught.value.transient


def test_a_request_that_was_damaged_on_the_way_is_sent_again(kms):
    """
    When the service finds a wrong checksum, the request is sent once more.
    """
    text = "The checksum in field plaintext_crc32c did not match the data."
    kms.faults.append(RefusalError("INVALID_ARGUMENT", text))

    assert wrapper_of(kms).wrap(SECRET, CONTEXT).child
    assert 2 == len(kms.calls)


def test_an_answer_in_the_name_of_another_key_is_refused(kms):
    """
    What another key than the configured one wrapped is not stored.
    """
    kms.corrupt.add("name")

    with pytest.raises(KeyWrapError, match="another key"):
        wrapper_of(kms).wrap(SECRET, CONTEXT)


def test_a_ring_cannot_send_us_to_another_key(kms):
    """
    An envelope that names a foreign key is refused before anything is sent.
    """
    wrapper = wrapper_of(kms)
    foreign = wrapper_of(kms, OTHER).wrap(SECRET, CONTEXT)
    kms.calls.clear()

    with pytest.raises(KeyWrapError, match=OTHER):
        wrapper.unwrap(foreign, CONTEXT)
    assert [] == kms.calls


def test_k3_the_service_itself_binds_the_key_id(kms):
    """
    K3: the key's id is the additional authenticated data of Cloud KMS.
    """
    wrapper = wrapper_of(kms)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    with pytest.raises(KeyWrapError, match="does not open"):
        wrapper.unwrap(wrapped, OTHER_CONTEXT)
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_k9_a_failing_call_shows_no_data_key(kms):
    """
    K9: the traceback of a failure holds nothing of the call that failed.
    """
    wrapper = wrapper_of(kms)
    kms.faults.append(RefusalError("NOT_FOUND", f"of {MASTER.hex()}"))

    with pytest.raises(KeyWrapError) as caught:
        wrapper.wrap(SECRET, CONTEXT)
    shown = "".join(traceback.format_exception(caught.value))
    assert MASTER.hex() not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_one_call_for_each_envelope(kms):
    """
    Wrapping costs one call and so does unwrapping.
    """
    wrapper = wrapper_of(kms)
    wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)

    assert ["useToEncrypt", "useToDecrypt"] == kms.calls


# --- addresses and processes -------------------------------------------------------------


def test_an_address_names_key_and_endpoint(kms):
    """
    gcpkms: takes the key's resource name and an endpoint.
    """
    query = f"endpoint={kms.endpoint}&also={OTHER}"
    wrapper = open_wrapper(Address.parse(f"gcpkms:{RING}?{query}"), NullSink())

    assert RING in wrapper.name
    assert meaning(SECRET) == meaning(
        wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)
    )


@pytest.mark.parametrize(
    "address",
    [
        "gcpkms:",
        "gcpkms:ring",
        "gcpkms:projects/p/locations/l/keyRings/r",
        f"gcpkms:{RING}/cryptoKeyVersions/0",
        f"gcpkms:{RING}?also=other",
        f"gcpkms:{RING}?endpoint=",
        f"gcpkms:{RING}?endpoint=https://me@host",
        f"gcpkms:{RING}?endpoint=https://host/path",
        f"gcpkms:{RING}?endpoint=https://[::1",
        f"gcpkms:{RING}?endpoint=ftp://host",
        f"gcpkms:{RING}?endpoint=http://kms.example",
        f"gcpkms:{RING}?region=eu",
    ],
)
def test_a_malformed_address_is_refused(address):
    """
    Half a name, an unknown option and an endpoint in the clear elsewhere are refused.
    """
    with pytest.raises(ConfigError):
        open_wrapper(Address.parse(address), NullSink())


@pytest.mark.parametrize("endpoint", ["kms.example", "https://kms.example:443/"])
def test_an_endpoint_over_tls_may_be_anywhere(endpoint):
    """
    A private endpoint is named with or without its scheme; nothing is asked before it is used.
    """
    assert GcpKmsWrapper(RING, endpoint=endpoint).name
    with pytest.raises(InsecureConfigError):
        GcpKmsWrapper(RING, endpoint="http://kms.example")


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_makes_a_client_of_its_own(kms):
    """
    A wrapper that was used before a fork works in the child and goes on in the parent.
    """
    made = []

    def make():
        made.append(os.getpid())
        return maker(kms.endpoint)()

    wrapper = GcpKmsWrapper(RING, client=make)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        alike = False
        try:
            alike = meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
        finally:
            own = made == [os.getppid(), os.getpid()]
            os.write(writing, b"alike" if alike and own else b"different")
            os._exit(0)
    os.close(writing)
    told = os.read(reading, 100)
    os.close(reading)
    os.waitpid(child, 0)

    assert b"alike" == told
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    assert [os.getpid()] == made


_SIGNED_IN = """
import sys
from kagimori.wrappers.gcp_kms import GcpKmsWrapper
from kagimori.testing.conformance.key_wrapper import CONTEXT, SECRET, meaning
wrapper = GcpKmsWrapper(sys.argv[1], endpoint=sys.argv[2])
wrapped = wrapper.wrap(SECRET, CONTEXT)
print(meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT)))
"""


def test_default_credentials_sign_in_over_tls(tmp_path):
    """
    A service account's file is found by its variable, and its token sent over verified TLS.
    """
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    credentials = grpc.ssl_server_credentials(
        [
            (
                own.private_key_pem.bytes(),
                b"".join(p.bytes() for p in own.cert_chain_pems),
            )
        ]
    )
    account = {
        "type": "service_account",
        "client_email": "ring@shop.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": _pem(),
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    service = GcpKms()
    service.create(RING)
    environment = {
        **os.environ,
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json"),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "ca.pem"),
    }
    with serving(service, credentials=credentials):
        done = subprocess.run(
            [sys.executable, "-c", _SIGNED_IN, RING, f"localhost:{service.port}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    assert "True" == done.stdout.strip(), done.stderr
    assert all(
        str(headers["authorization"]).startswith("Bearer ey")
        for headers in service.headers
    )


def _pem():
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def test_without_credentials_the_text_says_where_they_come_from(monkeypatch, tmp_path):
    """
    Where no default credentials are found, that is a wrapping error with Google's remedies.
    """
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    with pytest.raises(KeyWrapError) as caught:
        GcpKmsWrapper(RING).wrap(SECRET, CONTEXT)
    assert "gcloud auth application-default login" in caught.value.hint
    assert not caught.value.transient


def test_a_client_may_be_given(kms):
    """
    A client of one's own is used as it is.
    """
    wrapper = GcpKmsWrapper(RING, client=maker(kms.endpoint)())

    assert wrapper.unwrap(wrapper.wrap(SECRET, CONTEXT), CONTEXT)
    assert 2 == len(kms.calls)


def test_a_ring_is_made_and_opened_again(kms, tmp_path):
    """
    A ring in a folder is wrapped by the key, and opens with one call for its key.
    """
    wrapper = f"gcpkms:{RING}?endpoint={kms.endpoint}"
    place = f"file://{tmp_path}/ring"
    with closing(
        kagimori.open_ring(place, application="shop", wrapper=wrapper)
    ) as ring:
        token = ring.protector("cart").protect(b"42")
    kms.keys[RING].rotate()
    kms.calls.clear()
    with closing(
        kagimori.open_ring(place, application="shop", wrapper=wrapper)
    ) as ring:
        opened = ring.protector("cart").unprotect(token)

    assert b"42" == opened.payload
    assert ["useToDecrypt"] == kms.calls


def test_without_the_package_the_extra_is_named(monkeypatch):
    """
    Opening needs no package; using it without the package names the extra to install.
    """
    wrapper = GcpKmsWrapper(RING)
    monkeypatch.setitem(sys.modules, "google.cloud.kms_v1", None)
    monkeypatch.delattr("google.cloud.kms_v1", raising=False)

    with pytest.raises(ConfigError, match="not installed") as caught:
        wrapper.wrap(SECRET, CONTEXT)
    assert "kagimori[gcp]" in caught.value.hint


# --- the format ------------------------------------------------------------------------


def test_the_envelope_names_the_version(kms):
    """
    The envelope is the common one, of the kind gcp-kms, and names the version's resource.
    """
    wrapped = wrapper_of(kms).wrap(SECRET, CONTEXT)
    root = xml.parse(wrapped.child)

    assert (
        "Kagimori.DataProtection.GcpKmsXmlDecryptor, Kagimori" == wrapped.decryptor_type
    )
    assert "gcp-kms" == root.get("kind")
    assert f"{RING}/cryptoKeyVersions/1" == root.findtext("wrappingKey")
    assert wrapper_of(kms).key_of(WrappedSecret("Other, X", wrapped.child)) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_known_answers(data, expected):
    """
    The checksums of RFC 3720 appendix B.4, and of the catalogue's check string.
    """
    assert expected == crc32c(data)
