"""
Wrapping by AWS KMS, on the moto server; what moto cannot do, by stubbed answers.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import warnings

import pytest
from botocore.stub import ANY, Stubber
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kagimori.addresses import Address
from kagimori.errors import ConfigError, InsecureConfigError, KeyWrapError
from kagimori.events import NullSink
from kagimori.keys.protection import xml
from kagimori.keys.wrapping import WrappedSecret
from kagimori.testing.conformance.key_wrapper import (
    CONTEXT,
    OTHER_CONTEXT,
    SECRET,
    KeyWrapperConformance,
    meaning,
)
from kagimori.wrappers.aws_kms import FORMAT, AwsKmsWrapper, open_wrapper
from tests.doubles.aws_answers import CUT, Answer, Faulty
from tests.servers.moto import ACCESS_KEY, REGION, Moto, make_client
from tests.servers.processes import free_port

ACCOUNT = "arn:aws:kms:eu-central-1:123456789012"
ARN = f"{ACCOUNT}:key/11111111-1111-4111-8111-111111111111"
OTHER = f"{ACCOUNT}:key/22222222-2222-4222-8222-222222222222"
FOREIGN = ARN.replace("123456789012", "666666666666")
EU_REPLICA = f"{ACCOUNT}:key/mrk-1234abcd1234abcd1234abcd1234abcd"
US_REPLICA = EU_REPLICA.replace(REGION, "us-east-1")
DATA_KEY = bytes(range(32))
ENCRYPTION_CONTEXT = {"purpose": "kagimori-ring", "key-id": CONTEXT}


def new_key(moto: Moto, **options) -> str:
    return moto.client("kms").create_key(**options)["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def keys(moto: Moto) -> tuple[str, str]:
    """
    Two keys' ARNs.
    """
    return new_key(moto), new_key(moto)


class TestAwsKmsWrapper(KeyWrapperConformance):
    tampered = 24

    @pytest.fixture(autouse=True)
    def server(self, moto: Moto, keys: tuple[str, str]):
        self.moto, self.keys = moto, keys

    def make_wrapper(self, place):
        return AwsKmsWrapper(self.keys[0], client=self.moto.client("kms"))

    def make_other(self, place):
        return AwsKmsWrapper(self.keys[1], client=self.moto.client("kms"))

    def secrets(self):
        return (ACCESS_KEY[1],)


class Stubbed:
    """
    A wrapper whose client gives planned answers, and says what it was asked.
    """

    def __init__(self, key: str, *, also: tuple[str, ...] = ()):
        self.client = make_client("kms", "http://127.0.0.1:9")
        self.stub = Stubber(self.client)
        self.stub.activate()
        self.wrapper = AwsKmsWrapper(key, also=also, client=self.client)

    def made(self, arn: str, *, asked: str = ANY, **more) -> None:
        answer = {"Plaintext": DATA_KEY, "CiphertextBlob": b"wrapped", "KeyId": arn}
        expected = {
            "KeyId": asked,
            "KeySpec": "AES_256",
            "EncryptionContext": ENCRYPTION_CONTEXT,
        }
        if asked is ANY:
            expected["EncryptionContext"] = ANY
        self.stub.add_response("generate_data_key", answer | more, expected)

    def opens(self, arn: str, *, asked: str = ANY, **more) -> None:
        answer = {"Plaintext": DATA_KEY, "KeyId": arn}
        expected = {"KeyId": asked, "CiphertextBlob": ANY, "EncryptionContext": ANY}
        self.stub.add_response("decrypt", answer | more, expected)

    def refuses(self, operation: str, code: str, status=400, headers=None) -> None:
        self.stub.add_client_error(
            operation,
            code,
            f"the service's words on {code}",
            status,
            response_meta={"HTTPHeaders": headers or {}},
        )

    def wrap(self, arn: str = ARN, **more) -> WrappedSecret:
        self.made(arn, **more)
        return self.wrapper.wrap(SECRET, CONTEXT)


# --- the envelope --------------------------------------------------------------------------


def test_the_envelope_is_as_documented(moto: Moto, keys: tuple[str, str]):
    """
    A reader that was written from the documentation alone opens it by KMS's Decrypt.
    """
    client = moto.client("kms")
    wrapped = AwsKmsWrapper(keys[0], client=client).wrap(SECRET, CONTEXT)
    root = xml.parse(wrapped.child)
    data_key = root.find("dataKey").text
    opened = client.decrypt(
        CiphertextBlob=base64.b64decode(data_key),
        EncryptionContext=ENCRYPTION_CONTEXT,
    )["Plaintext"]
    lines = ["kagimori-envelope-1", "aws-kms", keys[0], "", data_key, CONTEXT]
    value = root.find("value")
    element = AESGCM(opened).decrypt(
        base64.b64decode(value.get("nonce")),
        base64.b64decode(value.text),
        "\n".join(lines).encode(),
    )

    assert (
        "Kagimori.DataProtection.AwsKmsXmlDecryptor, Kagimori" == wrapped.decryptor_type
    )
    assert meaning(SECRET) == meaning(element.decode())


@pytest.mark.parametrize("form", ["arn", "id", "alias", "alias arn"])
def test_whatever_names_the_key_its_arn_is_written(moto: Moto, keys, form: str):
    """
    ARN, id, alias and alias ARN wrap and unwrap, and the envelope names the key's own ARN.
    """
    client, arn = moto.client("kms"), keys[0]
    alias = f"alias/{form.replace(' ', '-')}"
    client.create_alias(AliasName=alias, TargetKeyId=arn)
    base = arn.partition(":key/")[0]
    text = {
        "arn": arn,
        "id": arn.rpartition("/")[2],
        "alias": alias,
        "alias arn": f"{base}:{alias}",
    }[form]
    wrapper = AwsKmsWrapper(text, client=client)
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    assert arn == wrapper.key_of(wrapped) == wrapper.newest()
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    by_arn = AwsKmsWrapper(arn, client=client)
    assert meaning(SECRET) == meaning(by_arn.unwrap(wrapped, CONTEXT))
    assert f"AWS KMS {text}" == wrapper.name


def test_the_key_material_is_in_the_inventory():
    """
    Pain 7: where KMS names the material, the envelope does, and `newest` tells of a rotation.
    """
    stubbed = Stubbed(ARN)
    wrapped = stubbed.wrap(KeyMaterialId="a" * 64)
    stubbed.made(ARN, KeyMaterialId="b" * 64)

    assert f"{ARN}#{'a' * 64}" == stubbed.wrapper.key_of(wrapped)
    assert f"{ARN}#{'b' * 64}" == stubbed.wrapper.newest()
    stubbed.opens(ARN, KeyMaterialId="a" * 64)
    assert meaning(SECRET) == meaning(stubbed.wrapper.unwrap(wrapped, CONTEXT))


def test_the_calls_name_key_and_context():
    """
    K3: both calls carry the ring key's id as encryption context, and name the key.
    """
    stubbed = Stubbed("alias/ring")
    stubbed.made(ARN, asked="alias/ring")
    wrapped = stubbed.wrapper.wrap(SECRET, CONTEXT)
    expected = {
        "KeyId": "alias/ring",
        "CiphertextBlob": b"wrapped",
        "EncryptionContext": ENCRYPTION_CONTEXT,
    }
    stubbed.stub.add_response(
        "decrypt", {"Plaintext": DATA_KEY, "KeyId": ARN}, expected
    )

    assert meaning(SECRET) == meaning(stubbed.wrapper.unwrap(wrapped, CONTEXT))
    stubbed.stub.assert_no_pending_responses()


# --- which key -----------------------------------------------------------------------------


def test_old_entries_open_after_a_rotation(moto: Moto):
    """
    Pain 7: what was wrapped before a rotation of the key's material still opens after it.
    """
    client = moto.client("kms")
    arn = new_key(moto)
    wrapper = AwsKmsWrapper(arn, client=client)
    before = wrapper.wrap(SECRET, CONTEXT)
    client.rotate_key_on_demand(KeyId=arn)
    after = wrapper.wrap(SECRET, CONTEXT)

    for wrapped in (before, after):
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_an_alias_that_points_elsewhere_needs_the_earlier_key_too(moto: Moto, keys):
    """
    Pain 7: after an alias was turned to another key, new entries are under that one, and old
    ones open where the earlier key is named for reading.
    """
    client = moto.client("kms")
    client.create_alias(AliasName="alias/turned", TargetKeyId=keys[0])
    wrapper = AwsKmsWrapper("alias/turned", client=client)
    before = wrapper.wrap(SECRET, CONTEXT)
    client.update_alias(AliasName="alias/turned", TargetKeyId=keys[1])
    after = wrapper.wrap(SECRET, CONTEXT)
    with pytest.raises(KeyWrapError):
        wrapper.unwrap(before, CONTEXT)
    both = AwsKmsWrapper("alias/turned", also=[keys[0]], client=client)

    assert [keys[0], keys[1]] == [wrapper.key_of(before), wrapper.key_of(after)]
    for wrapped in (before, after):
        assert meaning(SECRET) == meaning(both.unwrap(wrapped, CONTEXT))
    assert keys[1] == both.key_of(both.wrap(SECRET, CONTEXT))


def test_a_ring_cannot_send_us_to_a_foreign_key():
    """
    Attack: who writes the ring would have us call a key of theirs. What an envelope names is
    never sent: where it is certainly another key, nobody is called; else the configured key
    is, and KMS's own answer decides.
    """
    wrapped = Stubbed(FOREIGN).wrap(FOREIGN)
    silent = Stubbed(ARN, also=(OTHER,))
    with pytest.raises(KeyWrapError) as caught:
        # A call without a planned answer would be another error.
        silent.wrapper.unwrap(wrapped, CONTEXT)
    assert FOREIGN in caught.value.text
    assert ARN in caught.value.text
    assert "also=" in caught.value.hint

    alias = Stubbed("alias/ring")
    alias.refuses("decrypt", "IncorrectKeyException")
    with pytest.raises(KeyWrapError, match="another key wrapped it"):
        alias.wrapper.unwrap(wrapped, CONTEXT)
    alias.opens(ARN, asked="alias/ring")
    with pytest.raises(KeyWrapError, match=FOREIGN):
        alias.wrapper.unwrap(wrapped, CONTEXT)
    alias.opens(FOREIGN, asked="alias/ring")
    assert meaning(SECRET) == meaning(alias.wrapper.unwrap(wrapped, CONTEXT))


def test_further_keys_are_asked_by_their_own_name():
    """
    Of several keys the one that the envelope names is called, by the configured ARN.
    """
    stubbed = Stubbed(ARN, also=(FOREIGN, OTHER))
    for arn in (ARN, OTHER, FOREIGN):
        wrapped = Stubbed(arn).wrap(arn)
        stubbed.opens(arn, asked=arn)
        assert meaning(SECRET) == meaning(stubbed.wrapper.unwrap(wrapped, CONTEXT))


def test_replicas_of_a_multi_region_key_are_one_key():
    """
    What one region wrapped, another region's replica opens; a key of one region only is not
    another one's, and an id in another account neither.
    """
    wrapped = Stubbed(EU_REPLICA).wrap(EU_REPLICA)
    replica = Stubbed(US_REPLICA)
    replica.opens(US_REPLICA, asked=US_REPLICA)
    assert meaning(SECRET) == meaning(replica.wrapper.unwrap(wrapped, CONTEXT))

    for named, configured in (
        (ARN, ARN.replace(REGION, "us-east-1")),
        (EU_REPLICA, EU_REPLICA.replace("123456789012", "666666666666")),
        (EU_REPLICA, EU_REPLICA.replace("arn:aws", "arn:aws-cn")),
    ):
        wrapped = Stubbed(named).wrap(named)
        with pytest.raises(KeyWrapError, match="is wrapped by"):
            Stubbed(configured).wrapper.unwrap(wrapped, CONTEXT)


def test_an_answer_for_another_key_is_refused():
    """
    An endpoint that makes data keys under another key than asked, or none at all, is refused
    before anything is written.
    """
    for answer in (
        {"arn": OTHER},
        {"arn": ARN, "Plaintext": DATA_KEY[:16]},
        {"arn": ARN, "CiphertextBlob": b""},
    ):
        stubbed = Stubbed(ARN)
        assert stubbed.wrap()
        with pytest.raises(KeyWrapError) as caught:
            stubbed.wrap(**answer)
        assert "endpoint" in caught.value.hint
    with pytest.raises(KeyWrapError):
        Stubbed("alias/ring").wrap(f"{ACCOUNT}:alias/ring")
    assert Stubbed("alias/ring").wrap(ARN)


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "said", "hint", "passes"),
    [
        ("DisabledException", 400, "disabled", "kms:EnableKey", False),
        ("KMSInvalidStateException", 400, "state", "kms:CancelKeyDeletion", False),
        ("NotFoundException", 400, "no such key", "region", False),
        ("InvalidKeyUsageException", 400, "another kind", "SYMMETRIC_DEFAULT", False),
        ("AccessDeniedException", 400, "denies kms:", "Allow kms:", False),
        ("UnrecognizedClientException", 400, "credentials", "role", False),
        ("ExpiredTokenException", 400, "credentials", "clock", False),
        ("ValidationException", 400, "ValidationException", "", False),
        ("KeyUnavailableException", 500, "not connected", "try again", True),
        ("DependencyTimeoutException", 503, "slow", "Try again", True),
        ("KMSInternalException", 500, "failed", "Try again", True),
        ("ThrottlingException", 400, "fewer calls", "Wait", True),
        ("LimitExceededException", 429, "fewer calls", "Wait", True),
    ],
)
@pytest.mark.parametrize("operation", ["generate_data_key", "decrypt"])
def test_each_refusal_says_what_to_do(operation, code, status, said, hint, passes):
    """
    Pain 9: each of KMS's refusals is told with the right or the step that is missing, and
    whether it passes; KMS's own words are for the log.
    """
    stubbed = Stubbed(ARN)
    wrapped = stubbed.wrap()
    tries = 2 if status == 500 else 1
    for _ in range(tries):
        stubbed.refuses(operation, code, status, {"retry-after": "3"})
    wrapper = stubbed.wrapper
    call = (
        (wrapper.unwrap, wrapped) if operation == "decrypt" else (wrapper.wrap, SECRET)
    )
    with pytest.raises(KeyWrapError) as caught:
        call[0](call[1], CONTEXT)
    error = caught.value
    stubbed.stub.assert_no_pending_responses()

    right = "kms:Decrypt" if operation == "decrypt" else "kms:GenerateDataKey"
    assert right in error.text
    assert ARN in error.text
    assert said in error.text
    assert hint in error.hint
    assert passes == error.transient
    assert (3.0 if passes else None) == error.retry_after
    assert error.detail.startswith(code)


@pytest.mark.parametrize(
    "code", ["IncorrectKeyException", "InvalidCiphertextException"]
)
def test_what_kms_does_not_open_is_not_ours(code: str):
    """
    K5: another key's ciphertext, or an altered one, is refused for good.
    """
    stubbed = Stubbed(ARN)
    wrapped = stubbed.wrap()
    stubbed.refuses("decrypt", code)
    with pytest.raises(KeyWrapError) as caught:
        stubbed.wrapper.unwrap(wrapped, CONTEXT)
    stubbed.opens(ARN)

    assert not caught.value.transient
    assert caught.value.hint
    assert meaning(SECRET) == meaning(stubbed.wrapper.unwrap(wrapped, CONTEXT))


def test_each_missing_right_is_named(moto: Moto, keys: tuple[str, str]):
    """
    Pain 9: with real policies: who may only decrypt reads, who may only make data keys
    writes, and each is told the right that is missing.
    """
    wrapped = AwsKmsWrapper(keys[0], client=moto.client("kms")).wrap(SECRET, CONTEXT)
    with moto.allowing("kms:Decrypt") as key:
        reader = AwsKmsWrapper(keys[0], client=moto.client("kms", key))
        assert meaning(SECRET) == meaning(reader.unwrap(wrapped, CONTEXT))
        with pytest.raises(KeyWrapError) as wrapping:
            reader.wrap(SECRET, CONTEXT)
    with moto.allowing("kms:GenerateDataKey") as key:
        writer = AwsKmsWrapper(keys[0], client=moto.client("kms", key))
        assert writer.wrap(SECRET, CONTEXT)
        with pytest.raises(KeyWrapError) as unwrapping:
            writer.unwrap(wrapped, CONTEXT)

    for error, right in (
        (wrapping.value, "kms:GenerateDataKey"),
        (unwrapping.value, "kms:Decrypt"),
    ):
        assert f"AWS KMS denies {right} on {keys[0]}." == error.text
        assert f"Allow {right}" in error.hint
        assert not error.transient


def test_examining_tries_each_right_alone(moto: Moto, keys: tuple[str, str]):
    """
    Doctor: wrapping and unwrapping are tried apart, with the remedy in AWS's words.
    """

    def found(*rights: str) -> dict[str, bool]:
        with moto.allowing(*rights) as key:
            wrapper = AwsKmsWrapper(keys[0], client=moto.client("kms", key))
            findings = wrapper.examine()
        for finding in findings:
            assert finding.ok == (not finding.remedy)
            assert finding.ok or "Allow kms:" in finding.remedy
        return {finding.right: finding.ok for finding in findings}

    both = ("kms:GenerateDataKey", "kms:Decrypt")
    assert {"wrap": True, "unwrap": True} == found(*both)
    assert {"wrap": True, "unwrap": False} == found("kms:GenerateDataKey")
    assert {"wrap": False, "unwrap": True} == found("kms:Decrypt")
    assert {"wrap": False, "unwrap": False} == found("kms:Nothing")


def test_examining_tries_the_further_keys_too():
    """
    Doctor: for each further key the right to decrypt is tried, on what it never wrapped.
    """
    stubbed = Stubbed(ARN, also=(OTHER, FOREIGN))
    stubbed.made(ARN)
    stubbed.opens(ARN, asked=ARN)
    stubbed.refuses("decrypt", "InvalidCiphertextException")
    stubbed.refuses("decrypt", "AccessDeniedException")
    findings = stubbed.wrapper.examine()

    assert [True, True, True, False] == [finding.ok for finding in findings]
    assert FOREIGN in findings[-1].text
    stubbed.refuses("generate_data_key", "AccessDeniedException")
    for _ in range(3):
        stubbed.opens(ARN)
    odd = [finding.ok for finding in stubbed.wrapper.examine()]
    assert [False] * 4 == odd


def test_examining_tells_of_an_endpoint_that_decrypts_to_something_else():
    """
    Doctor: what comes back has to be what was wrapped.
    """
    stubbed = Stubbed(ARN)
    stubbed.made(ARN)
    stubbed.opens(ARN)
    assert [True, True] == [finding.ok for finding in stubbed.wrapper.examine()]

    stubbed.made(ARN)
    stubbed.opens(ARN, Plaintext=bytes(32))
    assert [True, False] == [finding.ok for finding in stubbed.wrapper.examine()]


def test_K9_no_answer_shows_in_an_error_or_repr():
    """
    K9: data keys stay out of errors and reprs, chained ones too.
    """
    stubbed = Stubbed(ARN)
    wrapped = stubbed.wrap()
    secret = b"a data key that is not to show!!"
    stubbed.opens(ARN, Plaintext=secret)
    with pytest.raises(KeyWrapError) as caught:
        stubbed.wrapper.unwrap(wrapped, CONTEXT)

    shown = f"{caught.value} {caught.value.detail} {caught.value.__context__!r}"
    assert "not to show" not in shown + repr(stubbed.wrapper)
    assert "not to show" not in repr(FORMAT.read(wrapped, CONTEXT))


# --- faults --------------------------------------------------------------------------------


@pytest.mark.double
@pytest.mark.parametrize(
    ("status", "kind", "wait"),
    [(429, "ThrottlingException", 7.0), (400, "ThrottlingException", 7.0)],
)
def test_K13_a_throttled_call_says_when_to_come_back(
    moto: Moto, keys, status, kind, wait
):
    """
    K13: on the wire, throttling with Retry-After is one request and an error that says
    when the next one may be made.
    """
    body = json.dumps({"__type": kind, "message": "Rate exceeded"}).encode()
    with Faulty.before(moto.endpoint) as faulty:
        wrapper = AwsKmsWrapper(keys[0], client=make_client("kms", faulty.endpoint))
        wrapped = wrapper.wrap(SECRET, CONTEXT)
        faulty.requests.clear()
        faulty.answers = [Answer(status, {"Retry-After": "7"}, body)]
        with pytest.raises(KeyWrapError) as caught:
            wrapper.unwrap(wrapped, CONTEXT)
        assert 1 == len(faulty.requests)
        faulty.answers = [CUT]
        assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))

    assert (True, wait) == (caught.value.transient, caught.value.retry_after)


def test_K13_an_endpoint_that_is_down_or_hangs_is_told_of_and_comes_back(
    moto: Moto, keys
):
    """
    K13: down at the start, or hanging later, is a passing error; then entries open again.
    """
    down = make_client("kms", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(KeyWrapError, match="does not answer") as at_start:
        AwsKmsWrapper(keys[0], client=down).wrap(SECRET, CONTEXT)
    client = moto.client("kms", read_timeout=0.2)
    wrapper = AwsKmsWrapper(keys[0], client=client)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    with moto.process.paused():
        for call in (
            lambda: wrapper.unwrap(wrapped, CONTEXT),
            lambda: wrapper.wrap(SECRET, CONTEXT),
        ):
            with pytest.raises(KeyWrapError, match="does not answer") as later:
                call()
            assert later.value.transient

    assert at_start.value.transient
    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))


def test_a_forked_worker_has_a_client_of_its_own(moto: Moto, keys: tuple[str, str]):
    """
    After a fork the child makes its own client, and both go on.
    """
    made = []

    def make():
        made.append(os.getpid())
        return moto.client("kms")

    wrapper = AwsKmsWrapper(keys[0], client=make)
    wrapped = wrapper.wrap(SECRET, CONTEXT)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads that other tests may have left.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            opened = wrapper.unwrap(wrapped, CONTEXT)
            said = f"{len(made)} {made[-1] == os.getpid()} {opened == SECRET}"
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)

    assert "2 True True" == said
    assert [os.getpid()] == made
    assert SECRET == wrapper.unwrap(wrapped, CONTEXT)


# --- addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        f"awskms:{ARN}",
        f"awskms:{ARN}?region={REGION}&also={OTHER}&also={FOREIGN}",
        "awskms:11111111-1111-4111-8111-111111111111?region=eu-west-1",
        "awskms:mrk-1234abcd1234abcd1234abcd1234abcd",
        "awskms:alias/shop/ring?endpoint=https://vpce-1.kms.eu-west-1.vpce.amazonaws.com",
        f"awskms:{ACCOUNT}:alias/ring?endpoint=http://localhost:4566",
        "awskms:arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1234abcd",
    ],
)
def test_addresses_name_a_key(address: str):
    """
    A key is named by ARN, id or alias; nothing is called for that.
    """
    wrapper = open_wrapper(Address.parse(address), NullSink())

    text = address.partition(":")[2].partition("?")[0]
    assert f"AWS KMS {text}" == wrapper.name
    assert text in repr(wrapper)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("awskms:", ConfigError),
        ("awskms:ring key", ConfigError),
        ("awskms:arn:aws:s3:::bucket", ConfigError),
        ("awskms:arn:aws:kms:eu-central-1:1234:key/x", ConfigError),
        (f"awskms:{ARN}?region=us-east-1", ConfigError),
        (f"awskms:{ARN}?also=alias/old", ConfigError),
        (f"awskms:{ARN}?also={ACCOUNT}:alias/old", ConfigError),
        (f"awskms:{ARN}?profile=x", ConfigError),
        (f"awskms:{ARN}?endpoint=kms:443", ConfigError),
        (f"awskms:{ARN}?endpoint=http://kms.internal", InsecureConfigError),
    ],
)
def test_impossible_addresses_are_refused(address: str, error: type[ConfigError]):
    """
    What names no key, or would carry data keys over http, is refused before anything is asked.
    """
    with pytest.raises(error) as caught:
        open_wrapper(Address.parse(address), NullSink())
    assert error is type(caught.value)


def test_an_address_wraps_with_boto3s_own_credentials(moto: Moto, keys, monkeypatch):
    """
    From the address alone, with credentials from the environment and the ARN's region.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ACCESS_KEY[1])
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    address = Address.parse(f"awskms:{keys[0]}?endpoint={moto.endpoint}")
    wrapper = open_wrapper(address, NullSink())
    wrapped = wrapper.wrap(SECRET, CONTEXT)

    assert meaning(SECRET) == meaning(wrapper.unwrap(wrapped, CONTEXT))
    with pytest.raises(KeyWrapError):
        wrapper.unwrap(wrapped, OTHER_CONTEXT)
    short = f"awskms:{keys[0].rpartition('/')[2]}?endpoint={moto.endpoint}"
    with pytest.raises(ConfigError) as caught:
        open_wrapper(Address.parse(short), NullSink()).wrap(SECRET, CONTEXT)
    assert "AWS_REGION" in caught.value.hint


def test_boto3_is_imported_when_it_is_needed():
    """
    Naming a key of KMS costs no import of boto3.
    """
    code = (
        "import sys\n"
        "from kagimori.wrappers.aws_kms import AwsKmsWrapper\n"
        "AwsKmsWrapper('alias/ring', region='eu-west-1')\n"
        "print('boto3' in sys.modules or 'botocore' in sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert b"False\n" == said.stdout
