"""
AWS on this machine: the moto server, for KMS and S3.

Run as a program it serves moto's own application. Its calls are let in one after another:
moto's threads would compare an ETag and write in two steps, and two of them could both win.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.servers.processes import ServerProcess, free_port, is_open, own_folder

_ROOT = Path(__file__).parents[2]
REGION = "eu-central-1"
# A session must not be used by two threads at once.
_TURN = threading.Lock()
ACCESS_KEY = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


class Moto:
    """
    A moto server that runs.
    """

    def __init__(self, port: int, process: ServerProcess):
        self.endpoint = f"http://127.0.0.1:{port}"
        self.process = process

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Moto]:
        with own_folder("moto") as folder:
            port = free_port()
            process = ServerProcess(
                [sys.executable, "-m", "tests.servers.moto", str(port)],
                folder / "log",
                lambda: is_open(port),
                environment={"PYTHONPATH": str(_ROOT)},
            )
            process.start()
            try:
                yield cls(port, process)
            finally:
                process.stop()

    def client(self, service: str, key: tuple[str, str] = ACCESS_KEY, **options):
        """
        Make a client as Kagimori makes one, with an access key of the test's own.
        """
        return make_client(service, self.endpoint, key, **options)

    @contextlib.contextmanager
    def allowing(self, *actions: str) -> Iterator[tuple[str, str]]:
        """
        Have policies enforced for a while; yields the access key of a user with these rights.
        """
        iam = self.client("iam")
        name = hashlib.sha256(repr(actions).encode()).hexdigest()[:16]
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": actions or ["x:Y"], "Resource": "*"}
        iam.put_user_policy(
            UserName=name,
            PolicyName="rights",
            PolicyDocument=json.dumps(
                {"Version": "2012-10-17", "Statement": [statement]}
            ),
        )
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._let_in("0")
        try:
            yield key["AccessKeyId"], key["SecretAccessKey"]
        finally:
            self._let_in("inf")
            iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
            iam.delete_user_policy(UserName=name, PolicyName="rights")
            iam.delete_user(UserName=name)

    def _let_in(self, calls: str) -> None:
        address = f"{self.endpoint}/moto-api/reset-auth"
        kind = {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, calls.encode(), kind, method="POST")
        urllib.request.urlopen(request, timeout=10).close()


def make_client(
    service: str,
    endpoint: str,
    key: tuple[str, str] = ACCESS_KEY,
    *,
    region: str = REGION,
    read_timeout: float = 5,
):
    """
    Make a client of boto3 for a server on this machine.
    """
    from botocore.config import Config

    options = {
        "connect_timeout": 2,
        "read_timeout": read_timeout,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }
    if service == "s3":
        options["s3"] = {"addressing_style": "path"}
    with _TURN:
        return _session(os.getpid(), key).client(
            service, region, endpoint_url=endpoint, config=Config(**options)
        )


@functools.cache
def _session(_process: int, key: tuple[str, str]):
    """
    Return a session, kept: it reads boto3's descriptions of the services once.
    """
    import boto3.session

    return boto3.session.Session(key[0], key[1])


def serve(port: int) -> None:
    """
    Serve moto's application until a signal comes.
    """
    import signal

    from moto.server import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import run_simple

    moto = DomainDispatcherApplication(create_backend_app)
    turn = threading.Lock()

    def one_by_one(environ, start_response):
        # The body is awaited outside: who dies in the middle of one holds up nobody.
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length:
            from io import BytesIO

            environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(length))
        with turn:
            return list(moto(environ, start_response))

    def end(*_: object) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    run_simple(
        "127.0.0.1",
        port,
        one_by_one,
        threaded=True,
        request_handler=MotoRequestHandler,
    )


if __name__ == "__main__":
    serve(int(sys.argv[1]))
