"""
What an installation is told: its file, its environment, what is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.settings import (
    Limits,
    ServerSettings,
    Settings,
    check_issuer,
    check_no_password,
    data_folder,
    is_loopback,
    parse_listen,
    read_settings,
    to_toml,
    with_environment,
    write_settings,
)

ISSUER = "https://login.example"


def written(folder, text, mode=0o600):
    path = folder / "kagimori.toml"
    path.write_text(text)
    path.chmod(mode)
    return folder


def minimal(**more):
    return Settings(issuer=ISSUER, wrapper="passphrase:env:P", **more)


# --- the folder ----------------------------------------------------------------------------


def test_the_option_goes_before_the_variable_and_that_before_the_default():
    """
    --data, else KAGIMORI_DATA, else ./kagimori-data; always absolute.
    """
    env = {"KAGIMORI_DATA": "/srv/k"}

    assert Path("/other") == data_folder("/other", env)
    assert Path("/srv/k") == data_folder(None, env)
    assert Path.cwd() / "kagimori-data" == data_folder(None, {})
    assert Path.cwd() / "here" == data_folder("here", env)


# --- the file ------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path):
    """
    A round trip keeps every setting, and the file is its owner's alone.
    """
    settings = minimal(
        data=tmp_path,
        store="sqlite:///elsewhere/k.db",
        earlier_issuers=("https://old.example",),
        tenants={"acme": "acme.example", "2nd": "two.example"},
        server=ServerSettings(
            listen="0.0.0.0:80", workers=3, trusted_proxies=("10.0.0.0/8",)
        ),
        limits=Limits(body_bytes=2048, drain_seconds=2.5),
    )

    write_settings(settings)

    assert settings == read_settings(tmp_path, {})
    assert 0o600 == stat.S_IMODE((tmp_path / "kagimori.toml").stat().st_mode)
    assert ["kagimori.toml"] == [path.name for path in tmp_path.iterdir()]


@given(st.text(max_size=40))
def test_any_text_survives_the_file(text):
    """
    Quotes, backslashes, control characters and any script are written so that TOML reads them.
    """
    import tomllib

    toml = to_toml(Settings(issuer=ISSUER, application=text))

    assert text == tomllib.loads(toml)["application"]


def test_a_folder_may_be_moved(tmp_path):
    """
    {data} stands for the folder wherever it lies now, special characters included.
    """
    folder = tmp_path / "a b#c%d"
    folder.mkdir()
    write_settings(
        Settings(data=folder, issuer=ISSUER, wrapper="passphrase:file:{data}/p")
    )

    settings = read_settings(folder, {})

    place = str(folder).replace("%", "%25").replace(" ", "%20").replace("#", "%23")
    assert f"sqlite://{place}/kagimori.db" == settings.store_url
    assert f"file://{place}/ring" == settings.ring_url
    assert f"passphrase:file:{place}/p" == settings.wrapper_url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("issuer = \n", "line 1"),
        ("nonsense\nx", "line 1"),
        ("", "issuer"),
        ('issuer = "https://a.example"\nstores = "x"', "stores"),
        ('issuer = "https://a.example"\n[server]\nworkers = "2"', "server.workers"),
        ('issuer = "https://a.example"\n[server]\nwind = 1', "wind"),
        ('issuer = "https://a.example"\n[throttle]\nwind = 1', "wind"),
        ('issuer = "https://a.example"\n[limits]\nbody_bytes = 0', "body_bytes"),
        ('issuer = "https://a.example"\n[limits]\nform_fields = 3', "form_fields"),
        ('issuer = "https://a.example"\n[server]\nlog_level = "loud"', "log_level"),
        ('issuer = "https://a.example"\n[server]\nlisten = "3000"', "3000"),
        ('issuer = "https://a.example"\n[server]\nhosts = ["A b"]', "hosts"),
        ('issuer = "https://a.example"\n[server]\ntrusted_proxies = ["x"]', "trusted"),
        ('issuer = "https://a.example"\n[server]\nworkers = 0', "workers"),
        ('issuer = "https://a.example"\n[tenants]\nacme = "https://x"', "acme"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_with_its_place(tmp_path, text, said):
    """
    The text names what is wrong; the hint says what to do.
    """
    with pytest.raises(ConfigError, match=said) as caught:
        read_settings(written(tmp_path, text), {})

    assert caught.value.hint


def test_bytes_that_are_no_text_are_refused(tmp_path):
    """
    A file that is not UTF-8 is told as such.
    """
    (tmp_path / "kagimori.toml").write_bytes(b"\xff")

    with pytest.raises(ConfigError, match="UTF-8"):
        read_settings(tmp_path, {})


def test_a_folder_without_a_file_says_how_to_begin(tmp_path):
    """
    The hint names init and the demo.
    """
    with pytest.raises(ConfigError) as caught:
        read_settings(tmp_path, {})

    assert "kagimori init" in caught.value.hint
    assert "--demo" in caught.value.hint


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o644, True), (0o660, False), (0o606, False)]
)
def test_K11_a_file_that_others_may_write_is_refused(tmp_path, mode, good):
    """
    Whoever writes the file leads the server to another ring; reading it tells no secret.
    """
    written(tmp_path, f'issuer = "{ISSUER}"', mode)

    if good:
        assert ISSUER == read_settings(tmp_path, {}).issuer
    else:
        with pytest.raises(InsecureConfigError, match="other users"):
            read_settings(tmp_path, {})


def test_a_folder_that_takes_nothing_is_told(tmp_path):
    """
    Writing into a folder that is not there fails with a sentence.
    """
    with pytest.raises(ConfigError, match="cannot be written"):
        write_settings(minimal(data=tmp_path / "absent"))


def test_a_written_file_outlives_a_power_cut(tmp_path, monkeypatch):
    """
    File and folder are brought to the disk, the folder after the file has its name.
    """
    seen = []

    def spied(handle):
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        seen.append((is_folder, (tmp_path / "kagimori.toml").exists()))

    monkeypatch.setattr(os, "fsync", spied)
    write_settings(minimal(data=tmp_path))

    assert [(False, False), (True, True)] == seen


def test_settings_that_cannot_be_right_are_not_written(tmp_path):
    """
    What would not be read is not written either, and what was there stays.
    """
    write_settings(minimal(data=tmp_path))
    before = (tmp_path / "kagimori.toml").read_bytes()

    with pytest.raises(ConfigError):
        write_settings(minimal(data=tmp_path, server=ServerSettings(workers=0)))

    assert before == (tmp_path / "kagimori.toml").read_bytes()


# --- the environment -----------------------------------------------------------------------


def test_the_environment_wins_in_what_is_said_of_serving(tmp_path):
    """
    Listeners, limits and throttles may come from it; lists are separated by commas.
    """
    write_settings(
        minimal(data=tmp_path, server=ServerSettings(workers=2, listen=":1"))
    )
    env = {
        "KAGIMORI_LISTEN": "127.0.0.1:9",
        "KAGIMORI_ACCESS_LOG": "true",
        "KAGIMORI_TRUSTED_PROXIES": "10.0.0.0/8, ::1/128",
        "KAGIMORI_LIMITS_BODY_BYTES": "4096",
        "KAGIMORI_LIMITS_DRAIN_SECONDS": "1.5",
        "KAGIMORI_THROTTLE_SUBJECT_PER_MINUTE": "7",
    }

    settings = read_settings(tmp_path, env)

    assert ("127.0.0.1:9", 2, True) == (
        settings.server.listen,
        settings.server.workers,
        settings.server.access_log,
    )
    assert ("10.0.0.0/8", "::1/128") == settings.server.trusted_proxies
    assert (4096, 1.5) == (settings.limits.body_bytes, settings.limits.drain_seconds)
    assert 7 == settings.throttle.subject_per_minute


def test_the_environment_never_says_where_data_lies(tmp_path):
    """
    A variable meant for an application's own ring does not lead the server astray.
    """
    write_settings(minimal(data=tmp_path))
    env = {
        "KAGIMORI_RING": "file:///other",
        "KAGIMORI_RING_WRAPPER": "plaintext:",
        "KAGIMORI_STORE": "sqlite:///other",
        "KAGIMORI_ISSUER": "https://evil.example",
    }

    assert read_settings(tmp_path, {}) == read_settings(tmp_path, env)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAGIMORI_WORKERS", "many"),
        ("KAGIMORI_LIMITS_BODY_BYTES", "1e"),
        ("KAGIMORI_ACCESS_LOG", "perhaps"),
    ],
)
def test_a_variable_that_cannot_be_understood_is_named(tmp_path, name, value):
    """
    The text names the variable and never repeats what stands in it.
    """
    write_settings(minimal(data=tmp_path))

    with pytest.raises(ConfigError, match=name) as caught:
        read_settings(tmp_path, {name: value})

    assert value not in caught.value.text


def test_settings_not_yet_written_take_the_environment_too(tmp_path):
    """
    A demo that is made just now is served as the environment says.
    """
    settings = with_environment(minimal(data=tmp_path), {"KAGIMORI_WORKERS": "4"})

    assert 4 == settings.server.workers
    assert tmp_path == settings.data


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    [
        "https://login.example",
        "https://login.example:8443",
        "https://login.example/auth",
        "http://localhost:3000",
        "http://127.0.0.1",
        "http://[::1]:3000",
    ],
)
def test_MET_1_a_sound_issuer_is_taken(issuer):
    """
    Https anywhere, http on loopback, a path if need be.
    """
    assert check_issuer(issuer) is None


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "login.example",
        "ftp://login.example",
        "https://",
        "https://login.example/",
        "https://login.example?x",
        "https://login.example?",
        "https://login.example#x",
        "https://login.example#",
        "https://user@login.example",
        "https://LOGIN.example",
        "https://login.example:0",
        "https://login.example:99999",
        "https://login.example:x",
        "https://login.example//a",
        "https://login.example/%61",
        "https://login.example/a b",
        "https://login.example/\n",
        "https://ログイン.example",
        "https://login.example:443:1",
        "http://login.example",
        "http://192.168.1.1",
        "http://localhost.evil.example",
    ],
)
def test_MET_1_an_issuer_that_cannot_be_one_is_refused(issuer):
    """
    No query, fragment, user, slash at the end, nothing that is written in two ways; no http.
    """
    with pytest.raises(ConfigError):
        check_issuer(issuer)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:pw@db/k",
        "certificate:/c.pfx?password=hunter2",
        "certificate:/c.pfx?a=b&PASSWORD=hunter2",
        "redis://:pw@h",
        "x:y?secret=hunter2",
        "certificate:/c.pfx?password=",
    ],
)
def test_K10_a_literal_password_is_refused_and_not_repeated(url):
    """
    Settings hold references only, whatever the scheme.
    """
    with pytest.raises(InsecureConfigError) as caught:
        check_no_password("wrapper", url)

    assert "hunter2" not in str(caught.value)
    assert "password-env" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user@db/k",
        "certificate:/c.pfx?password-env=P",
        "passphrase:file:/p",
        "file:///r",
    ],
)
def test_K10_references_pass(url):
    """
    Naming where a password is, is fine.
    """
    assert check_no_password("wrapper", url) is None


@pytest.mark.parametrize(
    ("settings", "good"),
    [
        (Settings(issuer="http://localhost:1", demo=True), True),
        (
            Settings(
                issuer="http://localhost:1",
                demo=True,
                server=ServerSettings(listen="[::1]:1"),
            ),
            True,
        ),
        (
            Settings(
                issuer="http://localhost:1",
                demo=True,
                server=ServerSettings(listen="0.0.0.0:1"),
            ),
            False,
        ),
        (
            Settings(
                issuer="http://localhost:1",
                demo=True,
                server=ServerSettings(listen=":1"),
            ),
            False,
        ),
        (
            Settings(
                issuer="http://localhost:1",
                demo=True,
                server=ServerSettings(listen="192.168.0.1:1"),
            ),
            False,
        ),
        (Settings(issuer="https://demo.example", demo=True), False),
    ],
)
def test_K10_the_demo_answers_on_this_machine_only(settings, good):
    """
    Its secrets are published: no other address is taken, by listener or issuer.
    """
    if good:
        assert settings is settings.validate()
    else:
        with pytest.raises(InsecureConfigError, match="this machine only"):
            settings.validate()


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        (":80", ("", 80)),
        ("a.example:0", ("a.example", 0)),
    ],
)
def test_addresses_to_listen_on_are_read(text, parsed):
    """
    HOST:PORT, with brackets around IPv6.
    """
    assert parsed == parse_listen(text)


@pytest.mark.parametrize("text", ["", "80", "a:", "a:x", "a:65536", "a:-1"])
def test_what_is_no_address_is_refused(text):
    """
    The hint shows how one is written.
    """
    with pytest.raises(ConfigError, match="no address"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("a.example", False),
    ],
)
def test_loopback_is_known_by_name_and_address(host, loopback):
    """
    The whole of 127/8 is loopback, a name other than localhost is not.
    """
    assert loopback == is_loopback(host)


def test_defaults_are_those_of_the_design():
    """
    The limits that hold unless somebody says otherwise.
    """
    limits = Limits()

    assert (32 * 1024, 100, 10) == (
        limits.header_bytes,
        limits.header_fields,
        limits.header_seconds,
    )
    assert (64 * 1024, 100, 30, 10) == (
        limits.body_bytes,
        limits.form_fields,
        limits.body_seconds,
        limits.drain_seconds,
    )
    assert {
        "subject_per_minute": 10,
        "address_per_minute": 100,
        "account_per_hour": 300,
    } == (msgspec.to_builtins(minimal().throttle))
