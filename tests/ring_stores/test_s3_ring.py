"""
Rings at S3 under a key of KMS, both on the moto server.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kagimori import open_ring
from tests.ring_stores.s3_places import KEY, bucket_of
from tests.servers.moto import ACCESS_KEY, REGION, Moto

PROCESSES = 20


@pytest.fixture
def addresses(moto: Moto, tmp_path: Path, monkeypatch) -> tuple[str, str]:
    """
    The addresses of a ring that is not there yet and of its wrapper; credentials are set.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ACCESS_KEY[1])
    monkeypatch.setenv("AWS_REGION", REGION)
    arn = moto.client("kms").create_key()["KeyMetadata"]["Arn"]
    location = f"s3://{bucket_of(tmp_path)}/{KEY}?endpoint={moto.endpoint}"
    return location, f"awskms:{arn}?endpoint={moto.endpoint}"


def stored(moto: Moto, place: Path) -> bytes:
    found = moto.client("s3").get_object(Bucket=bucket_of(place), Key=KEY)
    return found["Body"].read()


def test_two_slots_read_each_other_by_addresses_alone(
    moto: Moto, tmp_path: Path, addresses
):
    """
    Pain 5: two slots that name the same bucket and key read each other's payloads, and keep
    on while S3 and KMS do not answer.
    """
    location, wrapper = addresses
    blue = open_ring(location, application="shop", wrapper=wrapper)
    green = open_ring(location, application="shop", wrapper=wrapper, read_only=True)
    cookie = blue.protector("session").protect(b"signed in")
    with moto.process.paused():
        assert b"signed in" == green.protector("session").unprotect(cookie).payload
    green.close()
    blue.close()

    data = stored(moto, tmp_path)
    assert 1 == data.count(b"<key ")
    assert wrapper.partition(":")[2].partition("?")[0].encode() in data
    assert b"<masterKey" not in data


def test_K4_twenty_processes_make_one_key(moto: Moto, tmp_path: Path, addresses):
    """
    K4: 20 processes that start together without a bucket make exactly one key, and each opens
    what every other one protected.
    """
    command = [sys.executable, "-m", "tests.ring_stores.ring_worker", *addresses]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    try:
        assert {"ready\n"} == {worker.stdout.readline() for worker in workers}
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        keys = [worker.stdout.readline().strip() for worker in workers]
        payloads = [worker.stdout.readline() for worker in workers]
        opened = [worker.communicate("".join(payloads), 120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert 1 == len(set(keys))
    assert {"hello\n" * PROCESSES} == set(opened)
    assert 1 == stored(moto, tmp_path).count(b"<key ")
