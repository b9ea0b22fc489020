"""
``kagimori init``.
"""

import os
import sqlite3
import stat

import pytest

from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.founding import demo_settings, make_demo_folder


def init(program, *more):
    return program("init", "--issuer", "https://login.example.com", *more)


def test_init_makes_keys_owner_and_settings(installed):
    """
    After init there are signing, cookie and protection keys, an owner, and settings for one.
    """
    keys = installed.json("keys", "list")

    assert {("signing", "ES256"), ("signing", "RS256")} <= {
        (key["use"], key["algorithm"]) for key in keys
    }
    assert {"signing", "cookie", "protection"} == {key["use"] for key in keys}
    assert {"current"} == {key["state"] for key in keys}
    assert ["owner"] == [user["username"] for user in installed.json("users", "list")]
    assert 0o600 == stat.S_IMODE((installed.data / "kagimori.toml").stat().st_mode)


def test_the_owners_link_is_shown_once_and_stored_as_a_hash(program, tmp_path):
    """
    The one-time link is in the answer of init and nowhere in the data folder.
    """
    secret = tmp_path / "passphrase"
    secret.write_text("a long and lonely passphrase")
    secret.chmod(0o600)
    made = program.json(
        "init",
        "--issuer",
        "https://a.example",
        "--wrapper",
        f"passphrase:file:{secret}",
    )

    token = made["owner_link"].partition("invitation=")[2]
    assert token.startswith("kgm_inv_")
    assert len(token) > 40
    for path in program.data.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes()


def test_K10_an_unwrapped_ring_needs_to_be_asked_for_by_name(program):
    """
    Without a wrapper init refuses; with --insecure-plaintext-keys it warns.
    """
    refused = init(program)
    assert 3 == refused.exit_code
    assert "--insecure-plaintext-keys" in refused.stderr
    assert not program.data.exists()

    allowed = init(program, "--insecure-plaintext-keys")

    assert 0 == allowed.exit_code
    assert "Warning:" in allowed.stderr


def test_K10_a_wrapper_named_plaintext_is_no_way_around(program):
    """
    Naming the plaintext wrapper does what leaving it out does: it is refused.
    """
    assert 3 == init(program, "--wrapper", "plaintext:").exit_code


@pytest.mark.parametrize(
    "wrapper",
    [
        "certificate:/x.pfx?password=hunter2",
        "certificate:/x.pfx?password=hunter2&key=/k",
    ],
)
def test_a_literal_password_is_refused_and_not_repeated(program, wrapper):
    """
    Settings hold references only: a literal password is refused without being shown.
    """
    result = init(program, "--wrapper", wrapper)

    assert 3 == result.exit_code
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "issuer", ["http://login.example.com", "https://x.example/?a=b", "ftp://x", "x"]
)
def test_an_issuer_that_cannot_be_one_is_refused(program, issuer):
    """
    MET-1, MET-2: plain http off this machine, queries and other schemes are no issuers.
    """
    result = program("init", "--issuer", issuer, "--insecure-plaintext-keys")

    assert 3 == result.exit_code
    assert not (program.data / "kagimori.toml").exists()


def test_init_never_touches_an_installation_that_is_there(installed):
    """
    A second init is refused and changes nothing.
    """
    before = installed.json("keys", "list")

    result = init(installed, "--insecure-plaintext-keys")

    assert 6 == result.exit_code
    assert before == installed.json("keys", "list")


def test_the_default_algorithm_can_be_chosen(program):
    """
    --signing-algorithm makes another default; ES256 and RS256 stand beside it.
    """
    init(program, "--insecure-plaintext-keys", "--signing-algorithm", "PS256")

    signing = [k for k in program.json("keys", "list") if k["use"] == "signing"]
    assert ["PS256", "ES256", "RS256"] == [key["algorithm"] for key in signing]


def test_an_algorithm_that_nobody_signs_with_is_refused(program):
    """
    HS256 and none are no choices.
    """
    for name in ("HS256", "none", "x"):
        result = init(program, "--insecure-plaintext-keys", "--signing-algorithm", name)
        assert 3 == result.exit_code


def test_serve_without_demo_refuses_a_demo_folder_and_demo_refuses_a_real_one(
    installed,
):
    """
    A real folder never becomes a demo world, nor the reverse.
    """
    assert "real installation" in installed.fails(6, "serve", "--demo")


def test_a_folder_without_an_installation_says_what_to_do(program):
    """
    Every command on an empty folder ends with exit 3 and names the commands that help.
    """
    for arguments in (["serve"], ["keys", "list"], ["doctor"]):
        assert "kagimori init" in program.fails(3, *arguments)


def test_the_demo_refuses_a_folder_with_something_else_in_it(program):
    """
    A folder of somebody's documents does not become a demo world.
    """
    program.data.mkdir()
    (program.data / "letter.txt").write_text("dear")

    assert "not empty" in program.fails(6, "serve", "--demo")


def test_the_demo_refuses_every_address_but_this_machines(program):
    """
    The demo world's secrets are published, so it listens on loopback only.
    """
    for listen in ("0.0.0.0:3999", "192.0.2.1:3999", ":3999"):
        assert "this machine only" in program.fails(
            3, "serve", "--demo", "--listen", listen
        )


def test_K8_a_founding_that_died_can_be_run_again(program, monkeypatch):
    """
    Where the settings could not be written, a second init goes on with the same keys.
    """
    import kagimori.founding

    def fail(settings):
        raise ConfigError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(kagimori.founding, "write_settings", fail)
        assert 3 == init(program, "--insecure-plaintext-keys").exit_code
    assert not (program.data / "kagimori.toml").exists()

    again = init(program, "--insecure-plaintext-keys")

    assert 0 == again.exit_code, again.output
    assert ["owner"] == [user["username"] for user in program.json("users", "list")]
    assert 2 == len([k for k in program.json("keys", "list") if k["use"] == "signing"])


def test_K8_a_demo_that_died_while_its_passphrase_was_written_starts_again(tmp_path):
    """
    A half-written passphrase is no passphrase: the next start makes a whole one.
    """
    (tmp_path / "passphrase.0123456789abcdef").write_text("")
    settings = demo_settings(tmp_path, {})

    make_demo_folder(settings)

    assert len((tmp_path / "passphrase").read_text().strip()) > 40
    assert 0o600 == stat.S_IMODE((tmp_path / "passphrase").stat().st_mode)


def test_K11_a_link_in_a_demo_folder_is_refused(tmp_path):
    """
    Only regular files lie in a demo folder; the accepted twin stands above.
    """
    settings = demo_settings(tmp_path, {})
    make_demo_folder(settings)
    (tmp_path / "ring").symlink_to("/tmp")

    with pytest.raises(InsecureConfigError):
        make_demo_folder(settings)


def test_a_refused_start_leaves_the_environment_as_it_was(program, monkeypatch):
    """
    Options reach worker processes as variables, but only once the server really starts.
    """
    monkeypatch.delenv("KAGIMORI_LISTEN", raising=False)

    program.fails(3, "serve", "--demo", "--listen", "0.0.0.0:3999")

    assert "KAGIMORI_LISTEN" not in os.environ


def test_init_and_serve_take_the_ring_that_the_environment_names(
    program, tmp_path, monkeypatch
):
    """
    A ring in a database, named as the library names it, is the new installation's: it is made
    there, the settings name it, and the doctor finds it readable without the variables.
    """
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("a long and lonely passphrase\n")
    passphrase.chmod(0o600)
    location = f"sqlite://{tmp_path}/rings.db?table=shop"
    monkeypatch.setenv("KAGIMORI_RING", location)
    monkeypatch.setenv("KAGIMORI_RING_WRAPPER", f"passphrase:file:{passphrase}")

    assert 0 == init(program).exit_code

    monkeypatch.delenv("KAGIMORI_RING")
    monkeypatch.delenv("KAGIMORI_RING_WRAPPER")
    keys = program.json("keys", "list")
    assert {"signing", "cookie", "protection"} <= {key["use"] for key in keys}
    assert not (program.data / "ring").exists()
    stored = sqlite3.connect(tmp_path / "rings.db")
    names = [row[0] for row in stored.execute("SELECT FriendlyName FROM shop")]
    assert 1 == sum(name.startswith("key-") for name in names)


@pytest.mark.parametrize(
    "weak", ["hunter2", "correct horse battery staple", "aaaaaaaaaaaaaaaaaaaaaaaa"]
)
def test_K10_a_weak_passphrase_is_refused_by_init_and_by_serve(program, tmp_path, weak):
    """
    K10: known, short and repetitive passphrases wrap no server's ring; nothing is left behind.
    """
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(weak)
    passphrase.chmod(0o600)

    refused = init(program, "--wrapper", f"passphrase:file:{passphrase}")

    assert 3 == refused.exit_code
    assert weak not in refused.output
    assert "kagimori ring rewrap" in refused.output
    passphrase.write_text("a long and lonely passphrase")
    assert 0 == init(program, "--wrapper", f"passphrase:file:{passphrase}").exit_code
