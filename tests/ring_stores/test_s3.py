"""
A ring in an object of S3, on the moto server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kagimori.addresses import Address
from kagimori.errors import (
    ConfigError,
    ConflictError,
    RingMalformedError,
    RingReadOnlyError,
    RingUnreadableError,
    StoreError,
)
from kagimori.keys.protection import elements, xml
from kagimori.keys.store import Snapshot
from kagimori.ring_stores.s3 import S3Store, open_store
from kagimori.testing.conformance.key_store import (
    ONE,
    STATE,
    TWO,
    meaning,
    of,
)
from kagimori.testing.conformance.key_store_worker import change, named
from tests.doubles.aws_answers import CUT, LOST, SHORT, Answer, Faulty
from tests.ring_stores.s3_places import KEY, bucket_of, store
from tests.servers.moto import ACCESS_KEY, REGION, Moto, make_client
from tests.servers.processes import free_port

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"


@pytest.fixture
def place(moto: Moto, tmp_path: Path) -> Path:
    """
    A folder that stands for a bucket, which is not there yet.
    """
    (tmp_path / "endpoint").write_text(moto.endpoint)
    return tmp_path


@pytest.fixture
def filled(place: Path) -> Path:
    """
    The same with a ring of two elements and a state.
    """
    store(place).commit([ONE, TWO, STATE], (), None)
    return place


def raw(moto: Moto, place: Path) -> bytes:
    found = moto.client("s3").get_object(Bucket=bucket_of(place), Key=KEY)
    return found["Body"].read()


def put(moto: Moto, place: Path, data: bytes) -> None:
    moto.client("s3").put_object(Bucket=bucket_of(place), Key=KEY, Body=data)


@pytest.fixture(scope="module")
def faulty_endpoint(moto: Moto):
    with Faulty.before(moto.endpoint) as faulty:
        yield faulty


@pytest.fixture
def faulty(faulty_endpoint: Faulty) -> Faulty:
    """
    An endpoint before the server, not told anything yet.
    """
    faulty_endpoint.answers, faulty_endpoint.requests = [], []
    return faulty_endpoint


# --- layout --------------------------------------------------------------------------------


def test_the_object_lies_as_dotnet_lays_documents(moto: Moto, filled: Path):
    """
    One line with byte order mark and declaration, under <repository>, typed as XML.
    """
    data = raw(moto, filled)
    head = moto.client("s3").head_object(Bucket=bucket_of(filled), Key=KEY)

    assert data.startswith(
        b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><repository>'
    )
    assert b"\n" not in data
    assert "application/xml; charset=utf-8" == head["ContentType"]
    assert ["revocation", "revocation", "{urn:kagimori:ring:1}state"] == [
        root.tag for root in xml.children(xml.parse(data))
    ]


def test_any_root_and_an_empty_object_are_read(moto: Moto, filled: Path):
    """
    The root's name is not looked at; an object of no bytes is an empty ring that takes the
    next commit.
    """
    put(moto, filled, f"<anything>{ONE.xml}\n {TWO.xml}</anything>".encode())
    assert of(ONE, TWO) == meaning(store(filled).load())

    put(moto, filled, b"")
    assert () == store(filled).load().elements
    change(store(filled), (ONE,), ())
    assert of(ONE) == meaning(store(filled).load())


def test_the_mark_of_a_commit_is_not_shown_and_stays_out_of_the_state(
    moto: Moto, filled: Path
):
    """
    Each commit leaves another mark in the object; what is loaded is the state as it was given.
    """
    marks = {raw(moto, filled)}
    for number in range(2):
        change(store(filled), (named("x"),), ())
        change(store(filled), (), (named("x").name,))
        marks.add(raw(moto, filled))
        shown = store(filled).load().elements
        assert [ONE.name, TWO.name, "state"] == [element.name for element in shown]
        assert "commit" not in "".join(element.xml for element in shown), number

    assert 3 == len(marks)


def test_what_a_foreign_writer_adds_is_kept(moto: Moto, filled: Path):
    """
    An element that another writer put in is there at once, and after our next commit; a
    commit that was decided before it came conflicts.
    """
    before = store(filled).load().version
    theirs = named("theirs").xml.encode()
    put(moto, filled, raw(moto, filled).replace(b"<state", theirs + b"<state"))

    assert of(ONE, TWO, named("theirs")) == meaning(store(filled).load())
    with pytest.raises(ConflictError):
        store(filled).commit([named("ours")], (), before)
    change(store(filled), (named("ours"),), (ONE.name,))
    expected = of(TWO, named("theirs"), named("ours"))
    assert expected == meaning(store(filled).load())


def test_rings_lie_side_by_side(moto: Moto, filled: Path):
    """
    Each key of a bucket is a ring of its own.
    """
    client = moto.client("s3")
    other = S3Store(bucket_of(filled), "other/keys.xml", client=client)
    other.commit([ONE], (), None)

    assert of(ONE) == meaning(other.load())
    assert of(ONE, TWO) == meaning(store(filled).load())


def test_a_deleted_object_is_an_empty_ring_and_a_conflict_for_who_read_it(
    moto: Moto, filled: Path
):
    """
    Who deletes the object ends the ring: nothing comes back by a commit on what was.
    """
    version = store(filled).load().version
    moto.client("s3").delete_object(Bucket=bucket_of(filled), Key=KEY)

    assert Snapshot((), None) == store(filled).load()
    assert store(filled).probe() is None
    with pytest.raises(ConflictError):
        store(filled).commit([named("x")], (), version)


def test_versions_of_the_bucket_are_kept(moto: Moto, filled: Path):
    """
    Where the bucket keeps versions, a commit adds one; a ring that was deleted begins anew.
    """
    s3 = moto.client("s3")
    s3.put_bucket_versioning(
        Bucket=bucket_of(filled), VersioningConfiguration={"Status": "Enabled"}
    )
    change(store(filled), (named("x"),), ())
    s3.delete_object(Bucket=bucket_of(filled), Key=KEY)
    assert Snapshot((), None) == store(filled).load()
    store(filled).commit([ONE], (), None)

    versions = s3.list_object_versions(Bucket=bucket_of(filled))["Versions"]
    assert 3 == len(versions)


@pytest.mark.parametrize("text", [b"<repository>", b"nothing", b"<a><!DOCTYPE b></a>"])
def test_a_broken_object_makes_the_ring_unreadable(moto: Moto, filled: Path, text):
    """
    What is not well-formed is an error, never an empty ring.
    """
    put(moto, filled, text)
    with pytest.raises(RingMalformedError):
        store(filled).load()


def test_an_object_of_any_size_is_not_read(moto: Moto, filled: Path):
    """
    Ten megabytes are read, and a byte more is refused.
    """
    limit = 10 * 1024 * 1024
    data = f"<repository>{ONE.xml}</repository>".encode()
    put(moto, filled, data + b" " * (limit - len(data)))
    assert of(ONE) == meaning(store(filled).load())

    put(moto, filled, data + b" " * (limit - len(data) + 1))
    with pytest.raises(RingUnreadableError, match="larger"):
        store(filled).load()


# --- the bucket ----------------------------------------------------------------------------


def test_a_missing_bucket_is_made_closed_to_the_public(moto: Moto, place: Path):
    """
    The first commit makes the bucket, in the client's region, with public access blocked.
    """
    assert Snapshot((), None) == store(place).load()
    assert store(place).probe() is None
    store(place).commit([ONE], (), None)

    s3 = moto.client("s3")
    closed = s3.get_public_access_block(Bucket=bucket_of(place))
    assert {True} == set(closed["PublicAccessBlockConfiguration"].values())
    assert REGION == s3.head_bucket(Bucket=bucket_of(place))["BucketRegion"]


def test_in_the_first_region_a_bucket_is_made_without_naming_it(
    moto: Moto, place: Path
):
    """
    us-east-1 refuses to be named as a bucket's place, so it is not named.
    """
    client = moto.client("s3", region="us-east-1")
    bucket = f"{bucket_of(place)}-1"
    S3Store(bucket, client=client).commit([ONE], (), None)

    assert "us-east-1" == client.head_bucket(Bucket=bucket)["BucketRegion"]


def test_a_bucket_that_may_not_be_made_is_told_of(moto: Moto, place: Path):
    """
    Pain 9: without the right, the error names the bucket and the IAM actions; with it the
    ring is made.
    """
    bucket = bucket_of(place)
    both = ("s3:GetObject", "s3:PutObject")
    with moto.allowing(*both) as key, pytest.raises(StoreError) as caught:
        S3Store(bucket, client=moto.client("s3", key)).commit([ONE], (), None)
    rights = ("s3:GetObject", "s3:PutObject", "s3:CreateBucket")
    with moto.allowing(*rights, "s3:PutBucketPublicAccessBlock") as key:
        S3Store(bucket, client=moto.client("s3", key)).commit([ONE], (), None)

    assert bucket in caught.value.text
    assert "s3:CreateBucket" in caught.value.hint
    assert "s3:PutBucketPublicAccessBlock" in caught.value.hint
    assert not caught.value.transient


@pytest.mark.double
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("BucketAlreadyExists", "belongs to another account"),
        ("InvalidLocationConstraint", "making the bucket"),
    ],
)
def test_a_bucket_that_cannot_be_made_is_told_of(
    moto: Moto, faulty: Faulty, place: Path, code, said
):
    """
    A name that is taken, or a region that does not fit, is an error with the bucket's name.
    """
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    s3 = S3Store(bucket_of(place), client=make_client("s3", faulty.endpoint))
    missing = b"<Error><Code>NoSuchBucket</Code></Error>"
    faulty.answers = [Answer(404, {}, missing), Answer(409, {}, body)]
    with pytest.raises(StoreError, match=said) as caught:
        s3.commit([ONE], (), None)

    assert bucket_of(place) in caught.value.text


@pytest.mark.double
@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("code", ["BucketAlreadyOwnedByYou", "OperationAborted"])
def test_a_bucket_that_another_process_makes_is_waited_for(
    moto: Moto, faulty: Faulty, place: Path, code: str, is_there: bool
):
    """
    K4: who loses the race for the bucket uses the winner's; where that is not there yet, the
    error passes.
    """
    body = f"<Error><Code>{code}</Code></Error>".encode()
    missing = Answer(404, {}, b"<Error><Code>NoSuchBucket</Code></Error>")
    s3 = S3Store(bucket_of(place), client=make_client("s3", faulty.endpoint))
    faulty.answers = [missing, Answer(409, {}, body)]
    if is_there:
        moto.client("s3").create_bucket(
            Bucket=bucket_of(place),
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        s3.commit([ONE], (), None)
        assert of(ONE) == meaning(s3.load())
    else:
        with pytest.raises(StoreError, match="is being made") as caught:
            s3.commit([ONE], (), None)
        assert caught.value.transient


@pytest.mark.double
@pytest.mark.parametrize(
    ("status", "code", "is_fine"),
    [
        (403, "AccessDenied", False),
        (501, "NotImplemented", True),
        (500, "InternalError", False),
    ],
)
def test_K11_a_new_bucket_that_cannot_be_closed_is_told_of(
    moto: Moto, faulty: Faulty, place: Path, status, code, is_fine
):
    """
    K11: nothing is put into a bucket that could not be closed to the public. A server that
    knows no such switch is no such case.
    """
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    missing = Answer(404, {}, b"<Error><Code>NoSuchBucket</Code></Error>")
    s3 = S3Store(bucket_of(place), client=make_client("s3", faulty.endpoint))
    moto.client("s3").create_bucket(
        Bucket=bucket_of(place),
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    faulty.answers = [missing, Answer(200), Answer(status, {}, body)]
    faulty.answers += faulty.answers[-1:] * (status == 500)
    if is_fine:
        s3.commit([ONE], (), None)
        assert of(ONE) == meaning(s3.load())
    else:
        with pytest.raises(StoreError, match="blocking public access") as caught:
            s3.commit([ONE], (), None)
        assert (status == 500) == caught.value.transient
        assert status == 500 or "s3:PutBucketPublicAccessBlock" in caught.value.hint
        assert () == s3.load().elements


# --- rights --------------------------------------------------------------------------------


def test_each_missing_right_is_named(moto: Moto, filled: Path):
    """
    Pain 9: who may not read, or not write, is told the IAM action and the object's ARN.
    """
    arn = f"arn:aws:s3:::{bucket_of(filled)}/{KEY}"
    with moto.allowing("s3:PutObject") as key:
        denied = S3Store(bucket_of(filled), KEY, client=moto.client("s3", key))
        for call in (denied.load, denied.probe):
            with pytest.raises(StoreError) as reading:
                call()
            assert f"s3:GetObject on {arn}" in reading.value.hint
            assert "s3:ListBucket" in reading.value.hint
            assert not reading.value.transient
    with moto.allowing("s3:GetObject") as key:
        reader = S3Store(bucket_of(filled), KEY, client=moto.client("s3", key))
        version = reader.load().version
        assert version == reader.probe()
        with pytest.raises(StoreError) as writing:
            reader.commit([named("x")], (), version)

    assert f"s3:PutObject on {arn}" in writing.value.hint
    assert of(ONE, TWO) == meaning(store(filled).load())


@pytest.mark.double
def test_a_right_beside_s3_is_named_as_aws_names_it(
    moto: Moto, faulty: Faulty, filled: Path
):
    """
    Where the bucket is encrypted with a KMS key, its right is the one that is asked for.
    """
    said = (
        "User: arn:aws:sts::123456789012:assumed-role/web is not authorized to perform: "
        "kms:Decrypt on the resource associated with this ciphertext"
    )
    body = f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>"
    s3 = S3Store(bucket_of(filled), KEY, client=make_client("s3", faulty.endpoint))
    assert of(ONE, TWO) == meaning(s3.load())
    faulty.answers = [Answer(403, {}, body.encode())]
    with pytest.raises(StoreError) as caught:
        s3.load()

    assert "Allow kms:Decrypt." == caught.value.hint
    assert "assumed-role/web" in caught.value.detail


@pytest.mark.double
def test_K9_wrong_credentials_are_told_of_without_what_was_signed(
    moto: Moto, faulty: Faulty, filled: Path
):
    """
    K9: an answer that quotes the signed request, session token included, is not passed on.
    """
    body = (
        b"<Error><Code>SignatureDoesNotMatch</Code>"
        b"<Message>x-amz-security-token:SECRET</Message></Error>"
    )
    s3 = S3Store(bucket_of(filled), KEY, client=make_client("s3", faulty.endpoint))
    assert s3.probe()
    faulty.answers = [Answer(403, {}, body)]
    with pytest.raises(StoreError) as caught:
        s3.load()
    with moto.allowing("s3:GetObject"):
        stranger = moto.client("s3", ("AKIAIOSFODNN7NOTTHERE", "wrong"))
        with pytest.raises(StoreError) as unknown:
            S3Store(bucket_of(filled), KEY, client=stranger).load()

    shown = f"{caught.value} {caught.value.detail} {caught.value.__context__!r}"
    assert "refuses the credentials (SignatureDoesNotMatch)" in shown
    assert "SECRET" not in f"{caught.value} {caught.value.detail}"
    assert caught.value.__suppress_context__
    assert "clock" in caught.value.hint
    assert "InvalidAccessKeyId" in unknown.value.text


def test_examining_tries_each_right_alone(moto: Moto, filled: Path):
    """
    Doctor: reading, writing on a condition and reading without credentials are each tried,
    with the remedy in AWS's words, and nothing is changed.
    """
    before = raw(moto, filled)

    def found(*rights: str, read_only: bool = False) -> dict[str, bool]:
        with moto.allowing(*rights) as key:
            s3 = moto.client("s3", key)
            opened = S3Store(bucket_of(filled), KEY, client=s3, read_only=read_only)
            findings = opened.examine()
        for finding in findings:
            assert finding.ok == (not finding.remedy)
        return {finding.right: finding.ok for finding in findings}

    conditional = "write if unchanged"
    closed = {"anonymous read": True}
    both = ("s3:GetObject", "s3:PutObject")
    assert {"read": True, conditional: True} | closed == found(*both)
    assert {"read": True, conditional: False} | closed == found("s3:GetObject")
    assert {"read": False} | closed == found("s3:PutObject")
    assert {"read": True} | closed == found("s3:GetObject", read_only=True)
    assert before == raw(moto, filled)


def test_examining_a_ring_that_is_not_there_leaves_nothing(moto: Moto, filled: Path):
    """
    Doctor: without an object all rights are tried, and afterwards there is still none; a
    missing bucket is told of.
    """
    s3 = moto.client("s3")
    findings = S3Store(bucket_of(filled), "other.xml", client=s3).examine()
    listed = s3.list_objects_v2(Bucket=bucket_of(filled))["Contents"]
    (missing,) = S3Store(f"{bucket_of(filled)}-x", client=s3).examine()

    assert [("read", True), ("write if unchanged", True)] == [
        (finding.right, finding.ok) for finding in findings
    ]
    assert [KEY] == [entry["Key"] for entry in listed]
    assert not missing.ok
    assert "s3:CreateBucket" in missing.remedy


def test_K11_an_object_that_anybody_reads_is_told_of(moto: Moto, filled: Path):
    """
    K11: a bucket that answers without credentials is a finding.
    """
    s3 = moto.client("s3")
    assert store(filled).examine()[-1].ok
    s3.put_object_acl(Bucket=bucket_of(filled), Key=KEY, ACL="public-read")
    finding = store(filled).examine()[-1]

    assert ("anonymous read", False) == (finding.right, finding.ok)
    assert "Block Public Access" in finding.remedy


@pytest.mark.double
@pytest.mark.parametrize("is_there", [True, False])
def test_a_server_that_minds_no_condition_is_told_of(
    moto: Moto, faulty: Faulty, filled: Path, is_there: bool
):
    """
    Doctor: where a write comes through although its condition cannot hold, that is a finding,
    and the ring is what it was.
    """
    key = KEY if is_there else "other.xml"
    before = raw(moto, filled)
    s3 = S3Store(bucket_of(filled), key, client=make_client("s3", faulty.endpoint))
    assert s3.examine()[1].ok
    if not is_there:
        faulty.answers = [Answer(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")]
    else:
        read = Answer(200, {"ETag": '"x"'}, before)
        faulty.answers = [read]
    faulty.answers.append(Answer(200, {"ETag": '"x"'}))
    finding = s3.examine()[1]

    assert ("write if unchanged", False) == (finding.right, finding.ok)
    assert ("DELETE" in "".join(faulty.requests)) == (not is_there)
    assert before == raw(moto, filled)


# --- faults --------------------------------------------------------------------------------


@pytest.mark.double
@pytest.mark.parametrize("how", [LOST, CUT])
@pytest.mark.parametrize("is_new", [True, False])
def test_K8_a_write_whose_answer_is_lost_has_happened_once(
    moto: Moto, faulty: Faulty, filled: Path, how: Answer, is_new: bool
):
    """
    K8: where the connection breaks in a write, it is tried again, and who meets its own write
    has won: the commit is there once, and no conflict is told of.
    """
    if is_new:
        moto.client("s3").delete_object(Bucket=bucket_of(filled), Key=KEY)
    s3 = S3Store(bucket_of(filled), KEY, client=make_client("s3", faulty.endpoint))
    version = s3.load().version
    faulty.answers = [how]
    after = s3.commit([named("x")], (), version)

    assert after == store(filled).load()
    expected = of(named("x")) if is_new else of(ONE, TWO, named("x"))
    assert expected == meaning(after)
    assert version != after.version
    assert 2 == sum(request.startswith("PUT") for request in faulty.requests)


@pytest.mark.double
def test_a_conflict_stays_one_though_a_write_was_repeated(
    moto: Moto, faulty: Faulty, filled: Path
):
    """
    A repeated write that meets another writer's commit has lost.
    """
    s3 = S3Store(bucket_of(filled), KEY, client=make_client("s3", faulty.endpoint))
    version = s3.load().version
    change(store(filled), (named("theirs"),), ())
    faulty.answers = [CUT]
    with pytest.raises(ConflictError):
        s3.commit([named("x")], (), version)

    assert of(ONE, TWO, named("theirs")) == meaning(store(filled).load())


@pytest.mark.double
@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (503, {"Retry-After": "7"}, 7.0),
        (429, {"Retry-After": "0"}, 0.0),
        (503, {}, None),
        (503, {"Retry-After": "soon"}, None),
        (503, {"Retry-After": "99999999"}, 3600.0),
        (
            503,
            {
                "Date": "Sat, 21 Nov 2026 10:00:00 GMT",
                "Retry-After": "Sat, 21 Nov 2026 10:01:30 GMT",
            },
            90.0,
        ),
    ],
)
def test_a_throttled_call_says_when_to_come_back(
    moto: Moto, faulty: Faulty, filled: Path, status, headers, wait
):
    """
    Throttling passes: the error says after how long, and nothing is asked again before.
    """
    s3 = S3Store(bucket_of(filled), KEY, client=make_client("s3", faulty.endpoint))
    faulty.answers = [Answer(status, headers, SLOW_DOWN)]
    with pytest.raises(StoreError) as caught:
        s3.load()
    asked = len(faulty.requests)
    assert of(ONE, TWO) == meaning(s3.load())

    assert (True, wait) == (caught.value.transient, caught.value.retry_after)
    assert 1 == asked
    assert "fewer calls" in caught.value.text


@pytest.mark.double
@pytest.mark.parametrize(("failures", "is_read"), [(1, True), (2, False)])
@pytest.mark.parametrize(
    "failure", [Answer(500, {}, b""), Answer(502, {}, b"x"), CUT, SHORT]
)
def test_a_failure_is_tried_once_more(
    moto: Moto, faulty: Faulty, filled: Path, failures, is_read, failure
):
    """
    A failure of the service or the connection is tried once more, and then told of as passing.
    """
    s3 = S3Store(bucket_of(filled), KEY, client=make_client("s3", faulty.endpoint))
    faulty.answers = [failure] * failures
    if is_read:
        assert of(ONE, TWO) == meaning(s3.load())
    else:
        with pytest.raises(StoreError) as caught:
            s3.load()
        assert caught.value.transient
        assert caught.value.retry_after is None

    assert 2 == len(faulty.requests)


def test_a_server_that_is_down_or_hangs_is_told_of_and_comes_back(
    moto: Moto, filled: Path
):
    """
    Pain 3: down at the start, or hanging later, is a passing error; then the ring is read.
    """
    down = make_client("s3", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match="does not answer") as at_start:
        S3Store(bucket_of(filled), KEY, client=down).load()
    s3 = S3Store(bucket_of(filled), KEY, client=moto.client("s3", read_timeout=0.2))
    version = s3.load().version
    with moto.process.paused():
        for call in (s3.load, s3.probe, lambda: s3.commit([ONE], (), version)):
            with pytest.raises(StoreError, match="does not answer") as later:
                call()
            assert later.value.transient

    assert at_start.value.transient
    assert of(ONE, TWO) == meaning(s3.load())


@pytest.mark.double
def test_an_answer_without_an_etag_is_refused(moto: Moto, faulty: Faulty, filled: Path):
    """
    Without an ETag there is nothing to compare with, so such a server is refused.
    """
    data = raw(moto, filled)
    s3 = S3Store(bucket_of(filled), KEY, client=make_client("s3", faulty.endpoint))
    faulty.answers = [Answer(200, {"ETag": '"e"'}, data), Answer(200, {}, data)]
    assert '"e"' == s3.load().version
    with pytest.raises(StoreError, match="no ETag"):
        s3.load()


# --- addresses and objects -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("s3://rings", "s3://rings/keys.xml"),
        ("s3://rings/", "s3://rings/keys.xml"),
        ("s3://rings/shop/keys.xml", "s3://rings/shop/keys.xml"),
        ("s3://my.rings-1/a%20b?region=eu-west-1", "s3://my.rings-1/a b"),
        ("s3://rings/k?endpoint=http%3A%2F%2Fminio:9000", "s3://rings/k"),
    ],
)
def test_addresses_name_bucket_and_key(address: str, name: str):
    """
    An address names the bucket and the object; region and endpoint are options.
    """
    assert name == open_store(Address.parse(address), read_only=False).name


@pytest.mark.parametrize(
    "address",
    [
        "s3:rings/keys.xml",
        "s3:///keys.xml",
        "s3://Rings/keys.xml",
        "s3://ab/keys.xml",
        "s3://rings:9000/keys.xml",
        "s3://key:secret@rings/keys.xml",
        "s3://rings/folder/",
        "s3://rings/two%0Alines",
        "s3://rings/keys.xml?profile=x",
        "s3://rings/keys.xml?region=a&region=b",
        "s3://rings/keys.xml?endpoint=minio:9000",
        "s3://rings/keys.xml?endpoint=http://me:secret@minio",
        f"s3://rings/{'x' * 1025}",
    ],
)
def test_impossible_addresses_are_refused(address: str):
    """
    What names no object is refused before anything is asked, and no secret is quoted.
    """
    with pytest.raises(ConfigError) as caught:
        open_store(Address.parse(address), read_only=False)
    assert "secret" not in str(caught.value)


def test_an_address_opens_a_ring_with_boto3s_own_credentials(
    moto: Moto, filled: Path, monkeypatch
):
    """
    From the address alone, with credentials and region from the environment, also read-only.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ACCESS_KEY[1])
    monkeypatch.setenv("AWS_REGION", REGION)
    address = Address.parse(f"s3://{bucket_of(filled)}/{KEY}?endpoint={moto.endpoint}")
    change(open_store(address, read_only=False), (named("x"),), ())
    reader = open_store(address, read_only=True)

    assert of(ONE, TWO, named("x")) == meaning(reader.load())
    with pytest.raises(RingReadOnlyError):
        reader.commit([ONE], (), reader.load().version)
    assert ACCESS_KEY[1] not in repr(vars(reader))


def test_without_credentials_the_error_says_what_to_do(moto: Moto, monkeypatch):
    """
    Where boto3 finds no credentials, that is told, and is not passing.
    """
    # The same store with credentials: it gets as far as the missing bucket.
    with_them = S3Store("rings-without", client=moto.client("s3"))
    assert Snapshot((), None) == with_them.load()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    s3 = S3Store("rings-without", region=REGION, endpoint=moto.endpoint)
    with pytest.raises(StoreError, match="no credentials") as caught:
        s3.load()

    assert not caught.value.transient
    assert "role" in caught.value.hint


def test_a_client_and_what_makes_one_are_taken(moto: Moto, filled: Path):
    """
    A boto3 client may be given, or a function that makes one, which is asked once a process.
    """
    made = []

    def make():
        made.append(moto.client("s3"))
        return made[-1]

    of_client = S3Store(bucket_of(filled), KEY, client=moto.client("s3"))
    of_function = S3Store(bucket_of(filled), KEY, client=make)
    assert 0 == len(made)
    for _ in range(3):
        assert of_client.load() == of_function.load()

    assert 1 == len(made)


def test_boto3_is_imported_when_it_is_needed():
    """
    Naming a ring at S3 costs no import of boto3; reading it does.
    """
    code = (
        "import sys, json\n"
        "from kagimori.ring_stores.s3 import S3Store\n"
        "store = S3Store('rings', endpoint='http://127.0.0.1:1', region='x')\n"
        "before = 'boto3' in sys.modules or 'botocore' in sys.modules\n"
        "try:\n    store.load()\nexcept Exception as error: said = error.code\n"
        "print(json.dumps([before, 'boto3' in sys.modules, said]))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert [False, True, "store"] == json.loads(said.stdout)


def test_without_boto3_the_error_names_the_extra(monkeypatch):
    """
    Where boto3 is not installed, the error says how to install it.
    """
    store = S3Store("rings")
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(ConfigError) as caught:
        store.load()
    assert "s3://rings/keys.xml" == store.name
    assert "pip install 'kagimori[aws]'" == caught.value.hint


def test_state_is_kept_when_a_commit_gives_none(filled: Path):
    """
    Our state survives commits of others' elements, and is replaced by the next one.
    """
    change(store(filled), (named("x"),), ())
    newer = STATE.xml.replace('generation="7"', 'generation="8"')
    state = next(e for e in store(filled).load().elements if e.name == "state")
    assert 7 == elements.read_state(xml.parse(state.xml)).generation

    change(store(filled), (type(STATE)("state", newer),), ())
    state = next(e for e in store(filled).load().elements if e.name == "state")
    assert 8 == elements.read_state(xml.parse(state.xml)).generation
