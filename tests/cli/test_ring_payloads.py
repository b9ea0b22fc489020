"""
``kagimori ring protect``, ``unprotect``, ``inspect``.
"""

from __future__ import annotations

import json
import re

import pytest

from kagimori.crypto.digests import b64url_decode


def test_protect_reads_standard_input_and_unprotect_prints_it(ring):
    """
    Bytes go through unchanged; another purpose does not open them.
    """
    payload = bytes(range(256))
    purposes = ("--purpose", "a", "--purpose", "b")

    token = ring.ok("protect", *purposes, typed=payload).stdout
    opened = ring.ok("unprotect", *purposes, typed=token)

    assert payload == opened.stdout_bytes
    assert "inspect" in ring.fails(1, "unprotect", token, "--purpose", "a")
    assert 2 == ring("protect", typed=payload).exit_code


def test_unprotect_opens_what_a_revoked_key_protected_only_where_it_is_said(ring):
    """
    Dangerous reads have a dangerous option and a warning.
    """
    token = ring.ok("protect", "--purpose", "a", typed="hello").stdout.strip()
    ring.ok("revoke", ring.current(), "--yes")

    ring.fails(1, "unprotect", token, "--purpose", "a")
    result = ring.ok("unprotect", token, "--purpose", "a", "--dangerously")

    assert "hello" == result.stdout
    assert "revoked" in result.stderr


@pytest.mark.parametrize(
    ("change", "arguments", "verdict", "code"),
    [
        ([], ["--purpose", "a"], "opens", 0),
        ([], [], "key-known", 0),
        ([], ["--purpose", "b"], "not-ours", 1),
        ([], ["--purpose", "a", "--application", "other"], "not-ours", 1),
        (["compromise", "--all", "--no-wait", "--yes"], [], "revoked", 1),
    ],
)
def test_inspect_says_why_and_reveals_nothing(ring, change, arguments, verdict, code):
    """
    Key, state and age are told, and why a payload does not open; never what is in it.
    """
    token = ring.ok("protect", "--purpose", "a", typed="hello").stdout.strip()
    if change:
        ring.ok(*change)

    result = ring("inspect", token, *arguments, "--json")

    told = json.loads(result.stdout)
    assert (verdict, code) == (told["verdict"], result.exit_code)
    assert "hello" not in result.output + ring("inspect", token, *arguments).output


def test_inspect_of_an_unknown_key_and_of_no_payload(ring, tmp_path):
    """
    A payload of another ring, an expired one and no payload at all are told apart.
    """
    other = ("--ring", f"file://{tmp_path}/other")
    ring.ok("init", *other)
    token = ring.ok("protect", "--purpose", "a", *other, typed="x").stdout.strip()
    current = ring.ok("list").stdout

    assert "unknown key" in ring("inspect", token).stdout
    assert "no payload" in ring("inspect", "eyJhbGciOi").stdout
    assert token not in current


def test_inspect_guesses_the_applications_name(ring):
    """
    Of the spellings of a content root the one that opens is named; none is exit 7.
    """
    name = ("--application", "/home/site/wwwroot/")
    token = ring.ok("protect", "--purpose", "a", *name, typed="x").stdout.strip()
    guess = ("--guess-application", "/home/site/wwwroot", "--purpose", "a")

    ring.environ["KAGIMORI_RING_APPLICATION"] = None

    assert "/home/site/wwwroot/" == ring.json("inspect", token, *guess)["application"]
    wrong = ("--guess-application", "/srv/app", "--purpose", "a")
    assert 7 == ring("inspect", token, *wrong).exit_code


def test_inspect_guesses_for_sign_in_cookies_without_a_purpose(ring):
    """
    The purposes of ASP.NET Core's cookie schemes are tried where none is named.
    """
    middleware = (
        "Microsoft.AspNetCore.Authentication.Cookies.CookieAuthenticationMiddleware"
    )
    chain = [f"--purpose={each}" for each in (middleware, "Identity.Application", "v2")]
    token = ring.ok("protect", *chain, typed="ticket").stdout.strip()

    guessed = ring.json("inspect", token, "--guess-application", "/app")
    inspected = ring.json("inspect", token, "--cookie", "Identity.Application")

    assert "shop" == guessed["application"]
    assert "opens" == inspected["verdict"]


def test_payloads_need_an_application_and_keys_do_not(ring):
    """
    Whoever only looks at keys need not know the application's name.
    """
    ring.environ["KAGIMORI_RING_APPLICATION"] = None

    ring.ok("list")
    said = ring.fails(3, "protect", "--purpose", "a", typed="x")

    assert "--application" in said


def test_every_command_speaks_japanese(turned):
    """
    Results and help come in the chosen language.
    """
    assert "世代" in turned.ok("list", "--lang", "ja").stdout
    assert "保護" in turned.ok("rotate", "--lang", "ja").stdout
    assert "リング" in turned.ok("doctor", "--lang", "ja").stdout
    assert "保護リング" in turned.ok("--lang", "ja", "--help").stdout


def test_time_limited_payloads_open_until_their_time_is_over(ring):
    """
    An expiry is set by --expires-in, told by inspect, and asked for by --time-limited.
    """
    limited = ("--purpose", "a", "--expires-in", "12h")
    token = ring.json("protect", *limited, typed="hello")["protected"]

    opened = ring.json("unprotect", token, "--purpose", "a", "--time-limited")
    told = ring.json("inspect", token, "--purpose", "a")

    assert b"hello" == b64url_decode(opened["payload"])
    assert not opened["needs_renewal"]
    assert told["is_time_limited"]
    assert "expires" in ring.ok("inspect", token, "--purpose", "a").stdout
    ring.fails(1, "unprotect", token, "--purpose", "a")
    assert 2 == ring("protect", "--purpose", "a", "--expires-in", "soon").exit_code


def test_inspect_reads_standard_input_and_tells_an_age_by_the_key(ring):
    """
    A payload of a previous key is younger than its key and older than the successor.
    """
    token = ring.ok("protect", "--purpose", "a", typed="hello").stdout
    ring.ok("rotate", "--now", "--emergency", "--yes")

    shown = ring.ok("inspect", "-", "--purpose", "a", typed=token).stdout

    assert re.search(r"age of the payload: \d+ s to \d+ s", shown)
    assert "no longer the current one" in shown
    ring.fails(3, "inspect", "-", typed="")
    both = ("--purpose", "a", "--cookie", "Cookies")
    assert 2 == ring("inspect", token, *both).exit_code


def test_an_application_without_a_name_is_guessed_too(ring):
    """
    No name at all is one of the spellings; where none fits, the text says what to name.
    """
    token = ring.ok(
        "protect", "--application", "none", "--purpose", "a", typed="x"
    ).stdout.strip()
    guess = ("--guess-application", "/app")

    assert "none" in ring.ok("inspect", token, *guess, "--purpose", "a").stdout
    assert "--purpose" in ring("inspect", token, *guess).stdout
    assert "shop" in ring.ok("inspect", ours(ring), *guess, "--purpose", "a").stdout


def ours(ring) -> str:
    return ring.ok("protect", "--purpose", "a", typed="x").stdout.strip()
