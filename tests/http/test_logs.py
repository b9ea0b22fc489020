"""
Logs: escaped, masked, and silent about secrets (attacks S4, K9; C3).
"""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from kagimori.events import Event, Severity
from kagimori.http import logs
from kagimori.settings import ServerSettings
from tests.http.world import world


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\r\n{}",
        "\x1b[31mred",
        "\x9b31m",
        "a\u202eb",
        "a\u2028b",
        "\x00",
        "鍵守",
    ],
)
def test_S4_nothing_forges_a_line_or_a_terminal_command(stream, text):
    """
    One event is one line of printable ASCII, and what was said can be read back.
    """
    logs.LogSink().emit(Event("client_auth.failed", {"client": text}, Severity.WARNING))

    written = stream.getvalue()
    assert 1 == written.count("\n")
    assert written.strip().isascii()
    assert written.strip().isprintable()
    assert text == lines(stream)[0]["client"]
    assert "warning" == lines(stream)[0]["level"]


TOKEN = "kgm_rt_AfU-1fr6o8Zob_wt_zNEpT8BvvSys3aB2zJ105d7p8ADHDE2CrN9lB9"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.cDci-n3_RvFgIQLn91ZK"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (TOKEN, TOKEN),
        (f"before {JWT} after", JWT),
        ("Basic dGVzdGNsaWVudDpzZWNyZXQ=", "dGVzdGNsaWVudDpzZWNyZXQ"),
        ("authorization: bearer abcdefghijkl", "abcdefghijkl"),
        ("GET /secret?access_token=abc HTTP/1.1", "abc "),
        ("password=hunter2&x=1", "hunter2"),
        ("client_secret=s3cr3t", "s3cr3t"),
    ],
)
def test_K9_what_looks_like_a_secret_is_masked_wherever_it_stands(stream, text, secret):
    """
    In events, in nested values, and in what libraries log.
    """
    logs.logger().info("x", text=text, many=[text], one={"a": text})
    logging.getLogger("some.library").error("it failed: %s", text)

    assert secret not in stream.getvalue()
    assert 4 == stream.getvalue().count("***")


def test_K9_an_exception_is_logged_without_its_message(stream):
    """
    Class and places are kept; the message may quote a secret.
    """
    with pytest.raises(ValueError, match="hunter2") as caught:
        int("hunter2")
    logs.logger().error("request.broken", **logs.describe(caught.value))
    logging.getLogger("asyncio").error("Task failed", exc_info=caught.value)

    assert "hunter2" not in stream.getvalue()
    for line in lines(stream):
        assert "ValueError" == line["exception"]
        assert "test_logs.py" in line["at"][-1]


def test_frequent_events_are_logged_at_debug_only(stream):
    """
    A token is no event for the log unless somebody asks for it.
    """
    event = Event("token.issued", {"grant": "password"})
    logs.LogSink().emit(event)
    quiet = stream.getvalue()
    logs.configure("debug", stream)
    logs.LogSink("debug").emit(event)

    assert "" == quiet
    assert "token.issued" == lines(stream)[0]["event"]


def test_a_field_called_event_does_not_break_the_log(stream):
    """
    The logger's own word for the name is taken by nobody.
    """
    logs.LogSink().emit(Event("key.published", {"event": "x"}))

    assert ("key.published", "x") == (
        lines(stream)[0]["event"],
        lines(stream)[0]["event_"],
    )


def test_C3_the_access_log_masks_query_strings_and_names_the_request(tmp_path, stream):
    """
    Where it is switched on, each request is a line without a token in it.
    """

    async def scene(**settings):
        async with world(tmp_path, **settings) as w:
            return await w.get("/secret?access_token=abcdef&lang=ja")

    asyncio.run(scene())
    silent = stream.getvalue()
    answer = asyncio.run(scene(server=ServerSettings(access_log=True)))

    assert "" == silent
    line = lines(stream)[-1]
    assert ("request", "GET", "/secret", 401) == tuple(
        line[name] for name in ("event", "method", "path", "status")
    )
    assert "access_token=***&lang=***" == line["query"]
    assert answer.headers["x-request-id"] == line["request_id"]
    assert "abcdef" not in stream.getvalue()
