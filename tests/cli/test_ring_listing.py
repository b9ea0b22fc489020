"""
``kagimori ring init`` and ``list``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from kagimori.opening import open_ring
from kagimori.testing.clock import FixedClock


def test_init_makes_a_ring_once(bare):
    """
    Init makes the ring and its first key, and refuses where there is a ring.
    """
    said = bare.json("init")

    assert [said["key"]["id"]] == list(bare.states())
    assert "already" in bare.fails(6, "init")


def test_init_of_clear_keys_warns(bare):
    """
    A ring without wrapping is made only where plaintext says so, with a warning.
    """
    bare.environ["KAGIMORI_RING_WRAPPER"] = None

    bare.fails(3, "init")
    result = bare.ok("init", "--wrapper", "plaintext:")

    assert "in the clear" in result.stderr


def test_no_verb_makes_a_ring_but_init(bare):
    """
    A ring that is not there is an error for every other command, and stays absent.
    """
    for verb in (["list"], ["rotate"], ["doctor"]):
        assert bare(*verb).exit_code in (1, 3)

    assert not (bare.folder / "ring").exists()


def test_list_draws_lives_and_says_who_wraps_and_what_dotnet_would_do(turned):
    """
    Keys stand on one time axis, with their envelopes, and .NET's choice below.
    """
    shown = turned.ok("list").stdout

    assert re.search(r"current .*(█|#)", shown)
    assert re.search(r"previous .*(▒|=)", shown)
    assert shown.count("in the clear") == 2
    assert "opens only" in shown


def test_list_says_that_dotnet_nodes_cannot_open_keys_under_a_passphrase(bare):
    """
    An envelope that .NET does not know is named, and what .NET nodes would do.
    """
    bare.wrap()
    bare.ok("init")

    shown = bare.ok("list").stdout

    assert "PassphraseXmlDecryptor" in shown
    assert ".NET nodes cannot use any of these keys" in shown


def test_list_says_what_dotnet_nodes_protect_with(ring):
    """
    On a ring that .NET can open, its choice is named: here the same key as ours.
    """
    told = ring.json("list")

    assert ring.current() == told["dotnet"]["default"]
    assert told["dotnet"]["to_come"] is None
    assert ".NET nodes protect with the same key" in ring.ok("list").stdout


def test_list_json_has_the_promised_fields(turned):
    """
    Scripts find each key with its times and what guards it.
    """
    for key in turned.json("list")["keys"]:
        assert list(key) == [
            *("id", "algorithm", "state", "created", "activates", "due", "retires"),
            *("revoked", "wrapped_by", "wrapping_key", "is_newest", "recovery_by"),
            *("recovery_key", "reason"),
        ]


def test_a_location_may_not_be_named_twice(ring, tmp_path):
    """
    --ring with --data contradict each other; a secret in an argument is refused.
    """
    assert 2 == ring("list", "--ring", "file:///x", "--data", str(tmp_path)).exit_code
    said = ring.fails(3, "list", "--wrapper", "certificate:/a.pfx?password=hush")
    assert "hush" not in said
    assert "password-file" in said


def test_list_shows_every_state_of_a_key(turned):
    """
    Waiting, current, previous, revoked and overdue keys are drawn and told apart.
    """
    (old,) = [id_ for id_, state in turned.states().items() if state == "previous"]
    turned.ok("revoke", old, "--yes")
    turned.ok("rotate")

    shown = turned.ok("list").stdout

    assert re.search(rf"{old}  revoked .* revoked \d{{4}}", shown)
    assert re.search(r"next .* takes over in ", shown)
    assert re.search(r"current .* replaced \d{4}", shown)


def test_list_says_what_dotnet_does_about_an_overdue_key(bare):
    """
    Past its day without a successor a key goes on here; .NET would make another one.
    """
    clock = FixedClock(datetime.now(UTC) - timedelta(days=100))
    location = f"file://{bare.folder}/ring"
    ring = open_ring(location, application="shop", wrapper="plaintext:", clock=clock)
    clock.advance(timedelta(days=1))
    ring.rotate(immediate=True)
    ring.close()
    # A store that nobody may write to: no successor is made.
    bare.environ["KAGIMORI_RING_WRAPPER"] = None

    shown = bare.ok("list").stdout
    doctor = bare.ok("doctor").stdout

    assert "due since" in shown
    assert ".NET nodes find no key to their liking" in shown
    assert "has no successor" in doctor
    assert "No wrapper is named" in doctor
