"""
``kagimori keys``: the verbs that scripts rely on.
"""

import re

FIELDS = [
    "use",
    "kid",
    "algorithm",
    "state",
    "created",
    "published",
    "activates",
    "due",
    "retires",
    "expires",
]


def signing(program, algorithm="ES256"):
    return {
        key["state"]: key
        for key in program.json("keys", "list")
        if key["use"] == "signing" and key["algorithm"] == algorithm
    }


def test_keys_list_json_has_exactly_the_promised_fields(installed):
    """
    Each object of keys list --json holds the ten fields, times in RFC 3339 or null.
    """
    for key in installed.json("keys", "list"):
        assert FIELDS == list(key)
        for name in FIELDS[4:]:
            assert key[name] is None or re.fullmatch(
                r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", key[name]
            )


def test_keys_list_draws_each_keys_life_and_explains_the_marks(installed):
    """
    For people, keys are listed by use with a drawn life and a legend.
    """
    shown = installed.ok("keys", "list").stdout

    assert "Signing keys" in shown
    assert "Protection ring" in shown
    assert re.search(r"[│|].*(█|#)", shown)
    assert "verifies only" in shown


def test_a_gentle_rotation_stages_a_key_that_signs_later(installed):
    """
    Without flags a NEXT key is published and the current one goes on.
    """
    before = signing(installed)["current"]["kid"]

    outcome = installed.json("keys", "rotate", "signing", "--reason", "spring")

    after = signing(installed)
    assert before == after["current"]["kid"]
    assert outcome["key"]["kid"] == after["next"]["kid"]
    assert outcome["generation"] > 1


def test_a_second_rotation_while_one_waits_exits_4_with_its_dates(installed):
    """
    Two NEXT by accident are refused; --replace makes another.
    """
    first = installed.json("keys", "rotate", "signing")["key"]

    said = installed.fails(4, "keys", "rotate", "signing")
    second = installed.json("keys", "rotate", "signing", "--replace")["key"]

    assert first["activates"][:16] in said
    assert first["kid"] != second["kid"] == signing(installed)["next"]["kid"]


def test_now_before_propagation_exits_5_and_emergency_switches_at_once(installed):
    """
    --now is refused until verifiers can have seen the key; --emergency overrides it, and the
    replaced key goes on verifying.
    """
    old = signing(installed)["current"]["kid"]
    installed.ok("keys", "rotate", "signing")

    installed.fails(5, "keys", "rotate", "signing", "--now")
    installed.ok("keys", "rotate", "signing", "--now", "--emergency", "--yes")

    states = signing(installed)
    assert old != states["current"]["kid"]
    kids = {key["kid"]: key["state"] for key in installed.json("keys", "list")}
    assert kids[old] in ("previous", "retired")


def test_emergency_asks_first_and_without_a_terminal_needs_yes(installed):
    """
    What verifiers may feel is confirmed; a script has to say --yes.
    """
    said = installed.fails(6, "keys", "rotate", "signing", "--now", "--emergency")

    assert "--yes" in said
    assert 2 == installed("keys", "rotate", "signing", "--emergency").exit_code


def test_a_waiting_key_can_be_cancelled(installed):
    """
    Cancel takes a NEXT back; with none waiting it is refused.
    """
    installed.ok("keys", "rotate", "signing")

    installed.ok("keys", "cancel", "signing")

    assert "next" not in signing(installed)
    installed.fails(6, "keys", "cancel", "signing")


def test_K12_the_current_key_cannot_be_deleted(installed):
    """
    Delete refuses a key that signs, and one that nobody knows.
    """
    kid = signing(installed)["current"]["kid"]

    installed.fails(6, "keys", "delete", "signing", kid, "--yes")
    installed.fails(7, "keys", "delete", "signing", "nobody", "--yes")
    assert kid == signing(installed)["current"]["kid"]


def test_revoke_replaces_a_current_key_at_once(installed):
    """
    A revoked current key is replaced in the same step.
    """
    kid = signing(installed)["current"]["kid"]

    installed.ok("keys", "revoke", "signing", kid, "--yes", "--reason", "leaked")

    states = signing(installed)
    assert kid == states["revoked"]["kid"]
    assert kid != states["current"]["kid"]


def test_another_algorithm_becomes_the_default_by_name(installed):
    """
    Rotate --algorithm A --default turns A's key and makes it the default from then on.
    """
    outcome = installed.json(
        *("keys", "rotate", "signing", "--algorithm", "PS256", "--default"),
        *("--now", "--emergency", "--yes"),
    )

    assert "PS256" == outcome["default_algorithm"]
    assert "current" in signing(installed, "PS256")


def test_cookie_keys_turn_by_the_same_verbs(installed):
    """
    A cookie key is staged and cancelled like a signing key.
    """
    installed.ok("keys", "rotate", "cookie")

    states = {
        k["state"] for k in installed.json("keys", "list") if k["use"] == "cookie"
    }
    assert {"current", "next"} == states
    installed.ok("keys", "cancel", "cookie")


def test_an_unknown_tenant_exits_7(installed):
    """
    A verb on a tenant that is not there says so.
    """
    installed.fails(7, "keys", "list", "--tenant", "nobody")
    installed.fails(7, "keys", "rotate", "signing", "--tenant", "nobody")


def test_errors_speak_the_chosen_language_and_json_carries_the_code(installed):
    """
    With --json an error has its stable code on standard output.
    """
    installed.ok("keys", "rotate", "signing")

    result = installed("keys", "rotate", "signing", "--json")

    assert 4 == result.exit_code
    assert '"key.next_waits"' in result.stdout
    assert "エラー" in installed("keys", "rotate", "signing", language="ja").stderr
