"""
How clients of AWS are made and what their errors mean.
"""

from __future__ import annotations

import os
import ssl
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from botocore.exceptions import (
    BotoCoreError,
    CredentialRetrievalError,
    ParamValidationError,
)
from botocore.parsers import ResponseParserError

from kagimori import aws_clients
from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    KagimoriError,
    KeyWrapError,
)
from kagimori.testing.conformance.key_wrapper import CONTEXT, SECRET
from kagimori.wrappers.aws_kms import AwsKmsWrapper
from tests.servers.listening_proxy import proxy
from tests.servers.moto import ACCESS_KEY, REGION, make_client


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """
    No machine's own settings; credentials of no use.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ACCESS_KEY[1])
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


# --- making --------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["kms", "s3"])
def test_calls_are_bounded(service: str):
    """
    A client connects within 2 s, waits 5 s for an answer, and does not try again by itself.
    """
    config = aws_clients.make_client(service, region=REGION).meta.config

    assert (2, 5) == (config.connect_timeout, config.read_timeout)
    assert 1 == config.retries["total_max_attempts"]


def test_the_region_is_given_or_found(monkeypatch):
    """
    The region is the given one, else boto3's own, else that of the container or function.
    """
    with pytest.raises(ConfigError) as caught:
        aws_clients.make_client("kms")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    found = [aws_clients.make_client("kms").meta.region_name]
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    found.append(aws_clients.make_client("kms").meta.region_name)
    found.append(aws_clients.make_client("kms", region="eu-west-3").meta.region_name)

    assert ["eu-west-1", "eu-west-2", "eu-west-3"] == found
    assert "AWS_REGION" in caught.value.hint


def test_a_profile_that_is_not_there_is_told_of(monkeypatch):
    """
    A wrong AWS_PROFILE is a setting to mend, not a surprise.
    """
    assert aws_clients.make_client("kms", region=REGION)
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(ConfigError) as caught:
        aws_clients.make_client("kms", region=REGION)

    assert "AWS_PROFILE" in caught.value.hint


@pytest.mark.parametrize(
    ("service", "endpoint", "is_taken"),
    [
        ("kms", "https://kms.internal", True),
        ("kms", "http://127.0.0.1:4566", True),
        ("kms", "http://kms.internal", False),
        ("s3", "http://minio:9000", True),
    ],
)
def test_an_endpoint_that_boto3_found_is_checked_too(
    monkeypatch, service, endpoint, is_taken
):
    """
    Attack: who listens on the way. No data key is asked for over http, wherever boto3 took
    the endpoint from.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    if is_taken:
        client = aws_clients.make_client(service, region=REGION)
        assert endpoint == client.meta.endpoint_url
    else:
        with pytest.raises(InsecureConfigError):
            aws_clients.make_client(service, region=REGION)


@pytest.mark.parametrize("way", ["given", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"])
def test_an_endpoint_over_http_is_not_asked_by_a_proxy(monkeypatch, way):
    """
    Attack: the environment's proxy reads data keys that are meant for an emulator on this
    machine. Over https it is used, and sees nothing.
    """
    with proxy() as (url, asked):
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for scheme in ("http", "https"):
            endpoint = f"{scheme}://localhost:9"
            if way != "given":
                monkeypatch.setenv(way, endpoint)
            client = aws_clients.make_client(
                "kms",
                region=REGION,
                endpoint=endpoint if way == "given" else None,
            )
            with pytest.raises(BotoCoreError):
                client.list_keys()

    assert ["CONNECT localhost:9"] == asked


class Client:
    """
    Stands for a boto3 client; it notes who closes it.
    """

    def __init__(self) -> None:
        self.closed: list[int] = []

    def close(self) -> None:
        self.closed.append(os.getpid())


def test_a_given_client_lets_go_of_what_a_fork_copied():
    """
    A child closes the connections of the client that it inherited, once; the parent keeps its.
    """
    client = Client()
    clients = aws_clients.per_process(client)
    assert client is clients.get() is clients.get()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads that other tests may have left.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            is_same = client is clients.get() is clients.get()
            os.write(writer, f"{is_same} {client.closed == [os.getpid()]}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)

    assert b"True True" == said
    assert client is clients.get()
    assert [] == client.closed


# --- errors --------------------------------------------------------------------------------


class _Html(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Sign in to the network")

    def log_message(self, *_: object) -> None:
        """
        Say nothing.
        """


@pytest.fixture(params=["http", "https"])
def portal(request) -> Iterator[str]:
    """
    A server that answers everything with a page; over https by a certificate of nobody.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Html)
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"{request.param}://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_whoever_answers_and_is_not_aws_is_told_of(portal: str):
    """
    A captive portal's page, or a certificate that is not trusted, is told of as what it is.
    """
    wrapper = AwsKmsWrapper("alias/ring", client=make_client("kms", portal))
    with pytest.raises(KeyWrapError) as caught:
        wrapper.wrap(SECRET, CONTEXT)

    assert not caught.value.transient
    if portal.startswith("https"):
        assert "certificate that is not trusted" in caught.value.text
        assert "AWS_CA_BUNDLE" in caught.value.hint
    else:
        assert "cannot be its own" in caught.value.text
        assert "endpoint" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "says", "transient"),
    [
        (
            CredentialRetrievalError(provider="x", error_msg="secret"),
            "at the moment",
            True,
        ),
        (ParamValidationError(report="secret"), "cannot be asked", False),
        (ResponseParserError("secret"), "no answer of AWS", True),
        (TimeoutError("secret"), "does not answer", True),
        (ValueError("secret"), None, False),
        (KagimoriError("text"), None, False),
    ],
)
def test_errors_of_boto3_are_told_apart_from_our_own(error, says, transient):
    """
    What is boto3's is put in words, without quoting it; what is not stays what it is.
    """
    trouble = aws_clients.trouble_of(error)
    if says is None:
        assert trouble is None
    else:
        assert says in trouble.says
        assert transient == trouble.transient
        assert "secret" not in repr(trouble)
