"""
``kagimori tenants|clients|apis|users|tokens``.
"""

import json

import pytest


@pytest.fixture
def shop(installed):
    """
    An installation with an API and a client that lets operators issue tokens.
    """
    installed.ok(
        *("apis", "create", "orders", "--identifier", "https://orders.example"),
        *("--scope", "read", "--scope", "write"),
    )
    installed.ok(
        *("clients", "create", "shop", "--grant", "refresh_token"),
        *("--scope", "read", "--api", "orders", "--allow-operator-grants"),
    )
    installed.ok(
        "users", "create", "mina", "--password-stdin", typed="four walnuts sing late\n"
    )
    return installed


def test_a_tenant_is_made_with_its_keys_and_goes_with_them(installed):
    """
    Create makes signing and cookie keys; delete needs --yes and takes all.
    """
    installed.ok("tenants", "create", "acme", "--name", "ACME")

    uses = {key["use"] for key in installed.json("keys", "list", "--tenant", "acme")}
    assert {"signing", "cookie", "protection"} == uses
    installed.fails(6, "tenants", "create", "acme")
    installed.fails(6, "tenants", "delete", "acme")
    installed.ok("tenants", "delete", "acme", "--yes")
    assert ["default"] == [tenant["id"] for tenant in installed.json("tenants", "list")]
    installed.fails(7, "keys", "list", "--tenant", "acme")


def test_the_default_tenant_is_never_deleted(installed):
    """
    The tenant that the installation rests on stays.
    """
    installed.fails(6, "tenants", "delete", "default", "--yes", "--force")


def test_a_tenant_can_be_disabled_and_enabled(installed):
    """
    Disable and enable show in the list.
    """
    installed.ok("tenants", "create", "acme")
    installed.ok("tenants", "disable", "acme", "--yes")
    assert [True, False] == [t["disabled"] for t in installed.json("tenants", "list")]
    installed.ok("tenants", "enable", "acme")
    assert [False, False] == [t["disabled"] for t in installed.json("tenants", "list")]


def test_a_generated_secret_is_shown_once_and_a_second_stands_beside_it(installed):
    """
    Secrets rotate: a new one is added, the old one is withdrawn by its id.
    """
    made = installed.json("clients", "create", "shop")
    first = made["client"]["secrets"][0]["id"]

    added = installed.json("clients", "add-secret", "shop", "--expires-in", "90d")
    both = installed.json("clients", "show", "shop")["secrets"]
    installed.ok("clients", "withdraw-secret", "shop", first, "--yes")

    assert made["secret"].startswith("kgm_cs_")
    assert made["secret"] != added["secret"]
    assert [first, added["id"]] == [secret["id"] for secret in both]
    assert both[1]["expires"] is not None
    left = installed.json("clients", "show", "shop")
    assert [added["id"]] == [secret["id"] for secret in left["secrets"]]
    assert made["secret"] not in json.dumps(left)
    assert "digest" not in json.dumps(left)


@pytest.mark.parametrize(
    "secret", ["secret", "password123", "short", "shopshopshopshop"]
)
def test_K10_a_weak_chosen_secret_is_refused(installed, secret):
    """
    Known, short and guessable secrets are refused outside the demo world.
    """
    result = installed(
        "clients", "create", "shop", "--secret-stdin", typed=secret + "\n"
    )

    assert 3 == result.exit_code
    assert [] == installed.json("clients", "list")


def test_K10_a_strong_chosen_secret_is_taken(installed):
    """
    The accepted twin: a long random secret is stored, and not shown again.
    """
    strong = "uJ3kq9Xw2LmP8vTzR5nYc7BdF4hGs6Ae"

    made = installed.json(
        "clients", "create", "shop", "--secret-stdin", typed=strong + "\n"
    )

    assert made["secret"] is None


def test_the_legacy_profile_is_given_by_name_and_with_a_warning(installed):
    """
    legacy-2015 needs a confirmation that states the risk; the default profile needs none.
    """
    said = installed.fails(6, "clients", "create", "old", "--profile", "legacy-2015")

    assert "passwords" in said
    installed.ok(
        *(
            "clients",
            "create",
            "old",
            "--profile",
            "legacy-2015",
            "--grant",
            "password",
        ),
        "--yes",
    )
    installed.fails(3, "clients", "create", "new", "--grant", "password")


def test_a_client_can_only_name_apis_that_are_there(installed):
    """
    An unknown API is told at registration, not at the first token.
    """
    installed.fails(7, "clients", "create", "shop", "--api", "nobody")
    assert [] == installed.json("clients", "list")


def test_clients_are_disabled_enabled_and_deleted(shop):
    """
    The three verbs show in the list; an unknown client exits 7.
    """
    shop.ok("clients", "disable", "shop", "--yes")
    assert [True] == [client["disabled"] for client in shop.json("clients", "list")]
    shop.ok("clients", "enable", "shop")
    assert [False] == [client["disabled"] for client in shop.json("clients", "list")]
    shop.ok("clients", "delete", "shop", "--yes")
    assert [] == shop.json("clients", "list")
    shop.fails(7, "clients", "delete", "shop", "--yes")


def test_apis_are_listed_and_deleted(shop):
    """
    An API's identifier is unique, and the API can go.
    """
    again = ("apis", "create", "other", "--identifier", "https://orders.example")
    shop.fails(6, *again)
    shop.fails(6, "apis", "create", "orders", "--identifier", "https://x.example")
    shop.fails(3, "apis", "create", "bad", "--identifier", "no uri")
    shop.ok("apis", "delete", "orders", "--yes")
    assert [] == shop.json("apis", "list")


def test_an_api_can_only_name_an_algorithm_that_the_tenant_signs_with(installed):
    """
    A signing algorithm without a current key is refused with the command that makes one.
    """
    create = ("apis", "create", "a", "--identifier", "https://a.example", "--algorithm")

    assert "keys rotate" in installed.fails(6, *create, "PS512")
    installed.ok(*create, "RS256")


def test_K10_a_weak_password_is_refused(installed):
    """
    Known passwords are refused; the accepted twin stands in the fixture `shop`.
    """
    result = installed(
        "users", "create", "mina", "--password-stdin", typed="password\n"
    )

    assert 3 == result.exit_code
    assert ["owner"] == [user["username"] for user in installed.json("users", "list")]


def test_a_username_belongs_to_one_user(shop):
    """
    A second user of the same name, whatever its case, is refused.
    """
    shop.fails(
        6, "users", "create", "MINA", "--password-stdin", typed="six cold pears wake\n"
    )


def test_an_operator_issues_inspects_and_revokes(shop):
    """
    Tokens issue starts a family where the client allows it; inspect tells of it, revoke ends it.
    """
    answer = shop.json("tokens", "issue", "--client", "shop", "--user", "mina")

    refresh = shop.json("tokens", "inspect", typed=answer["refresh_token"] + "\n")
    access = shop.json("tokens", "inspect", typed=answer["access_token"] + "\n")
    assert ("refresh_token", True) == (refresh["kind"], refresh["active"])
    assert ("access_token", True) == (access["kind"], access["active"])
    assert "https://orders.example" == access["facts"]["audience"]

    shop.ok("tokens", "revoke", typed=answer["refresh_token"] + "\n")

    refresh = shop.json("tokens", "inspect", typed=answer["refresh_token"] + "\n")
    access = shop.json("tokens", "inspect", typed=answer["access_token"] + "\n")
    assert (False, "operator") == (refresh["active"], refresh["reason"])
    assert (False, "revoked") == (access["active"], access["reason"])


def test_an_operator_cannot_issue_where_the_client_does_not_allow_it(shop):
    """
    allow_operator_grants is off by default.
    """
    shop.ok("clients", "create", "quiet", "--grant", "refresh_token", "--api", "orders")

    assert 0 != shop("tokens", "issue", "--client", "quiet", "--user", "mina").exit_code
    assert 0 == shop("tokens", "issue", "--client", "shop", "--user", "mina").exit_code


def test_all_of_a_user_is_listed_and_revoked(shop):
    """
    Families of a user are listed with their state; revoking them all says how many lived.
    """
    for _ in range(3):
        shop.ok("tokens", "issue", "--client", "shop", "--user", "mina")

    before = shop.json("tokens", "list", "--user", "mina")
    count = shop.json("tokens", "revoke", "--user", "mina", "--yes")
    after = shop.json("tokens", "list", "--client", "shop")

    assert ["active"] * 3 == [family["state"] for family in before]
    assert {"revoked": 3} == count
    assert {"user_signed_out"} == {family["state"] for family in after}


def test_a_new_password_ends_what_the_old_one_began(shop):
    """
    Users password raises the epoch: earlier families end; --keep-sessions keeps them.
    """
    shop.ok("tokens", "issue", "--client", "shop", "--user", "mina")
    new = ("users", "password", "mina", "--password-stdin")

    kept = shop.json(*new, "--keep-sessions", typed="nine green kites drift\n")
    ended = shop.json(*new, typed="seven lazy bells hum\n")

    assert (0, 1) == (kept["families_revoked"], ended["families_revoked"])


def test_a_disabled_user_gets_nothing_until_enabled(shop):
    """
    Users disable ends sign-ins and stops new ones.
    """
    issue = ("tokens", "issue", "--client", "shop", "--user", "mina")
    shop.ok(*issue)
    shop.ok("users", "disable", "mina", "--yes")
    assert 0 != shop(*issue).exit_code
    shop.ok("users", "enable", "mina")
    assert 0 == shop(*issue).exit_code


def test_a_text_that_is_no_token_is_told_so(shop):
    """
    Inspect says unknown, revoke refuses, neither shows a traceback.
    """
    found = shop.json("tokens", "inspect", typed="kgm_rt_nonsense\n")

    assert ("unknown", False) == (found["kind"], found["active"])
    assert "Traceback" not in shop("tokens", "revoke", typed="x.y.z\n").output


def test_names_and_spans_that_make_no_sense_are_usage_errors(installed):
    """
    A lifetime that is none, or a choice that is not offered, exits 2.
    """
    installed.fails(2, "clients", "create", "shop", "--access-token-lifetime", "soon")
    installed.fails(2, "clients", "create", "shop", "--auth-method", "trust-me")


def test_doctor_finds_a_sound_installation_sound(shop):
    """
    Every check of a fresh installation is good, and says so in both languages.
    """
    findings = shop.json("doctor")

    assert {"good"} == {finding["verdict"] for finding in findings}
    assert {"files", "database", "ring", "wrapping", "clock", "keys", "audit"} == {
        finding["check"] for finding in findings
    }
    assert "監査記録は完全です" in shop("doctor", language="ja").stdout


def test_K11_doctor_finds_what_others_may_read(shop):
    """
    A database that others may read is a finding, with the command that mends it.
    """
    (shop.data / "kagimori.db").chmod(0o644)

    result = shop("doctor")

    assert 1 == result.exit_code
    assert "chmod go-rwx" in result.stdout


def test_doctor_finds_a_damaged_audit_trail(shop):
    """
    K14: a record that was taken out breaks the chain, and the doctor names it.
    """
    import sqlite3

    with sqlite3.connect(shop.data / "kagimori.db") as database:
        database.execute("DELETE FROM document WHERE kind='audit' AND id LIKE '%2'")
    database.close()

    result = shop("doctor")

    assert 1 == result.exit_code
    assert "audit trail" in result.stdout


def test_version_and_completion_work_without_an_installation(program):
    """
    Version names what is installed; completion prints a script for each shell.
    """
    assert "0.1.0" == program.json("version")["kagimori"]
    for shell in ("bash", "zsh", "fish"):
        assert "kagimori" in program.ok("completion", shell).stdout


def test_T6_a_client_registered_again_does_not_inherit_refresh_tokens(shop):
    """
    Deleting a client ends its families by the epoch, so its successor in name gets none.
    """
    answer = shop.json("tokens", "issue", "--client", "shop", "--user", "mina")
    shop.ok("clients", "delete", "shop", "--yes")

    shop.ok("clients", "create", "shop", "--grant", "refresh_token", "--api", "orders")

    found = shop.json("tokens", "inspect", typed=answer["refresh_token"] + "\n")
    assert not found["active"]


def test_TOK15_a_client_is_registered_with_the_origins_that_may_read(installed):
    """
    TOK-15: origins of browsers are given when a client is made, and shown; what is no origin is
    refused.
    """
    installed.json(
        *("clients", "create", "spa", "--auth-method", "none"),
        *("--origin", "https://app.example", "--origin", "http://localhost:5173"),
    )

    shown = {each["id"]: each for each in installed.json("clients", "list")}["spa"]
    assert ["https://app.example", "http://localhost:5173"] == shown["origins"]
    installed.fails(
        3, "clients", "create", "other", "--origin", "https://app.example/path"
    )
