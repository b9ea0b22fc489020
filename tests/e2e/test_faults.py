"""
Faults of the machine and the operator: clear text, exit 3, no new key.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kagimori.compose import open_installation
from kagimori.settings import read_settings
from kagimori.testing.clock import FixedClock
from tests.e2e.disks import AS_OWNER_ONLY, read_only, small_disk
from tests.e2e.searching import contents
from tests.e2e.server import (
    FIRST_KEYS,
    MACHINE,
    MACHINE_GRANT,
    NO_THROTTLE,
    Program,
    Server,
    eventually,
    free_port,
    kid,
)


@dataclass(frozen=True)
class Sound:
    """
    A demo world that was served and ended well, to be copied and damaged.
    """

    data: Path
    port: int
    keys: Any
    refresh_token: str


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    data = tmp_path_factory.mktemp("sound") / "data"
    server = Server(data)
    try:
        server.start()
        token = server.client().password_grant()["refresh_token"]
        assert 0 == server.stop()
    finally:
        server.close()
    return Sound(data, server.port, server.program.json("keys", "list"), token)


@pytest.fixture
def copied(sound, tmp_path, make_server):
    """
    A server on a copy of the sound folder, which has not been started.
    """
    data = shutil.copytree(sound.data, tmp_path / "data")
    return make_server(data, port=sound.port, environ=NO_THROTTLE)


def key_file(data):
    (found,) = (data / "ring").glob("key-*.xml")
    return found


def ring_of(data):
    return contents(data / "ring") if (data / "ring").exists() else None


# --- what cannot be started ----------------------------------------------------------------


def scrambled(name):
    def spoil(data):
        # The first page stays: the file is a database, and what it holds is none.
        path = data / name
        whole = path.read_bytes()
        path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))

    return spoil


def written(name, content):
    return lambda data: (data / name).write_bytes(content)


def removed(name):
    return lambda data: (data / name).unlink()


def flipped(data):
    path = key_file(data)
    text = path.read_text("utf-8-sig")
    at = text.index("</", text.index("nonce=")) - 10
    other = "A" if text[at] != "A" else "B"
    path.write_text(text[:at] + other + text[at + 1 :], "utf-8-sig")


def moved_key(data):
    path = key_file(data)
    name = "00000000-0000-4000-8000-000000000000"
    old = path.stem.removeprefix("key-")
    path.write_text(path.read_text("utf-8-sig").replace(old, name), "utf-8-sig")


DAMAGES = {
    "the database is garbage": (
        written("kagimori.db", os.urandom(20_000)),
        ["kagimori.db is damaged", "restore a backup"],
    ),
    "pages of the database are garbage": (
        scrambled("kagimori.db"),
        ["kagimori.db is damaged", "restore a backup"],
    ),
    "the database is empty": (
        written("kagimori.db", b""),
        ["kagimori.db is empty", "Restore it from a backup"],
    ),
    "the database is gone": (
        removed("kagimori.db"),
        ["no database at", "Restore it from a backup"],
    ),
    "a ring file is garbage": (
        lambda data: key_file(data).write_bytes(b"\0garbage"),
        ["not well-formed", "backup; no key is made"],
    ),
    "a ring file is cut off": (
        lambda data: key_file(data).write_bytes(key_file(data).read_bytes()[:700]),
        ["not well-formed", "backup; no key is made"],
    ),
    "a byte of a wrapped key is another": (
        flipped,
        ["there but cannot be read", "restore it from a backup"],
    ),
    "a wrapped key stands under another id": (
        moved_key,
        ["there but cannot be read", "restore it from a backup"],
    ),
    "the ring's state is garbage": (
        written("ring/state-1.xml", b"<state"),
        ["state-1.xml is not well-formed", "backup; no key is made"],
    ),
    "the ring's keys are gone": (
        lambda data: key_file(data).unlink(),
        ["no ring at", "must be brought back"],
    ),
    "the ring is gone": (
        lambda data: shutil.rmtree(data / "ring"),
        ["no ring at", "must be brought back"],
    ),
    "the passphrase is another": (
        written("passphrase", b"another passphrase\n"),
        ["there but cannot be read", "does not open", "Use the passphrase"],
    ),
    "the passphrase is empty": (
        written("passphrase", b"\n"),
        ["is empty", "passphrase there that the ring was made with"],
    ),
    "the passphrase is gone": (
        removed("passphrase"),
        ["passphrase cannot be read", "Check the path"],
    ),
    "others may read the passphrase": (
        lambda data: (data / "passphrase").chmod(0o644),
        ["others may read it", "chmod 600"],
    ),
    "others may write the folder": (
        lambda data: data.chmod(0o777),
        ["can be changed by other users", "chmod 700"],
    ),
    "the settings are garbage": (
        written("kagimori.toml", b'issuer = "http://loc'),
        ["kagimori.toml cannot be understood", "Correct"],
    ),
    "the marks are garbage": (
        written("high-water.json", b"{"),
        ["high-water.json is damaged", "delete the file"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_K5_what_is_damaged_stops_the_start_and_no_key_is_made(damage, copied, sound):
    """
    Exit 3 and a text that says what to do; folder and keys are as they were.
    """
    spoil, phrases = DAMAGES[damage]
    # From here on it is only looked at, so the -wal's place beside it does not matter.
    spoil(copied.data)
    before = ring_of(copied.data)

    text = copied.refuses()
    listed = copied.program("keys", "list")
    examined = copied.program("doctor")

    for phrase in phrases:
        assert phrase in text
    assert "→" in text
    # The marks are no business of who only looks; everything else stops commands too.
    assert (0 if "marks" in damage else 3) == listed.exit_code, listed.output
    assert 0 != examined.exit_code, examined.output
    for result in (listed, examined):
        assert isinstance(result.exception, SystemExit | None), result.exc_info
    assert before == ring_of(copied.data)
    # With the damage undone everything is there, and nothing was added meanwhile.
    for name in (
        "kagimori.toml",
        "kagimori.db",
        "passphrase",
        "high-water.json",
        "ring",
    ):
        _restore(sound.data / name, copied.data / name)
    copied.data.chmod(0o700)
    assert sound.keys == copied.program.json("keys", "list")


def _restore(source, target):
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
        for leftover in ("-wal", "-shm"):
            target.with_name(target.name + leftover).unlink(missing_ok=True)


def test_K5_after_the_damage_is_undone_nobody_is_logged_out(copied, sound):
    """
    The passphrase comes back: the same server starts, and the old refresh token works.
    """
    (copied.data / "passphrase").rename(copied.data / "elsewhere")
    copied.refuses()
    (copied.data / "elsewhere").rename(copied.data / "passphrase")

    copied.start()

    renewed = copied.client().refresh(sound.refresh_token)
    assert 200 == copied.client().secret(renewed["access_token"]).status
    assert sound.keys == copied.program.json("keys", "list")


@pytest.mark.parametrize(
    ("part", "lost"), [("database", "kagimori.db"), ("ring", "ring")]
)
def test_K7_a_restored_backup_is_told_and_serves_nothing_until_it_is_accepted(
    copied, sound, part, lost
):
    """
    Older than the folder remembers: unready, with the command that accepts it by name.
    """
    copied.start()
    if part == "ring":
        asyncio.run(_turn_protection_ring(copied.data))
    copied.stop()
    # The marks are written each minute, and by each start.
    copied.start()
    copied.stop()
    _restore(sound.data / lost, copied.data / lost)

    copied.launch("--json")
    assert eventually(lambda: copied.probe("/readyz"), 60)
    client = copied.client()

    assert {"restored"} == {p["code"] for p in client.get("/readyz").json["problems"]}
    told = copied.admin("/readyz").json["problems"][0]
    assert f"doctor --accept-restored {part}" in told["hint"]
    assert 503 == client.try_refresh(sound.refresh_token).status
    assert 503 == client.post("/oauth/token", MACHINE_GRANT, MACHINE).status
    if part == "database":
        copied.program.ok("doctor", "--accept-restored", part, "--yes")
        assert eventually(copied.ready, 5)
        assert client.refresh(sound.refresh_token)


async def _turn_protection_ring(data):
    installation = open_installation(read_settings(data, {}))
    installation.ring.rotate(immediate=True)
    await installation.close()


# --- folders, ports, time ------------------------------------------------------------------


def test_a_demo_and_a_real_installation_never_take_each_others_folder(
    make_server, tmp_path, sound
):
    """
    Either way round the start is refused, with the way out, and the folder stays as it is.
    """
    program = Program(tmp_path / "real")
    (tmp_path / "passphrase").write_text("some nine long and lonely words\n")
    (tmp_path / "passphrase").chmod(0o600)
    wrapper = f"passphrase:file:{tmp_path}/passphrase"
    program.ok("init", "--issuer", "http://localhost:3000", "--wrapper", wrapper)
    demo = shutil.copytree(sound.data, tmp_path / "demo")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    before = [contents(folder) for folder in (program.data, demo, foreign)]

    real_as_demo = make_server(program.data).refuses(6)
    demo_as_real = make_server(demo, demo=False).refuses(6)
    foreign_as_demo = make_server(foreign).refuses(6)
    nothing = make_server(tmp_path / "nothing", demo=False).refuses(3)

    assert "is a real installation" in real_as_demo
    assert "is a demo world" in demo_as_real
    assert "is not empty" in foreign_as_demo
    assert "no installation" in nothing
    assert "kagimori init" in nothing
    for text in (real_as_demo, demo_as_real, foreign_as_demo, nothing):
        assert "→" in text
    assert before == [contents(folder) for folder in (program.data, demo, foreign)]
    assert not (tmp_path / "nothing").exists()
    assert (
        0
        != program(
            "init", "--issuer", "https://b.example", "--wrapper", wrapper
        ).exit_code
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_told_before_anything_is_made(make_server, tmp_path, host):
    """
    Exit 3, with another port to try; a fresh folder stays unmade.
    """
    server = make_server()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as taken:
        taken.bind((host, server.port))
        taken.listen()

        text = server.refuses()

    assert "is taken by another program" in text
    assert f"make serve PORT={server.port + 1}" in text
    assert not server.data.exists()


def test_a_taken_admin_port_is_told_where_it_was_named(make_server):
    """
    A named address is meant: nothing else is taken in its place.
    """
    server = make_server()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = taken.getsockname()[1]

        status = server.launch("--admin-listen", f"127.0.0.1:{port}").wait(60)

    assert 3 == status
    assert f"127.0.0.1:{port} is taken by another program" in server.log


@pytest.mark.parametrize("seconds", [3, 12, 86_400])
def test_R13_a_clock_that_was_set_back_makes_unready_and_logs_nobody_out(
    copied, sound, seconds
):
    """
    More than 5 s behind the store's time: unready and told; tokens live, no key is made.
    """
    asyncio.run(_work_in_the_future(copied.data, timedelta(seconds=seconds)))

    copied.launch("--json")
    assert eventually(lambda: copied.probe("/readyz"), 60)
    client = copied.client()
    renewed = client.refresh(sound.refresh_token)
    again = client.refresh(sound.refresh_token)

    assert renewed["refresh_token"] == again["refresh_token"]
    if seconds == 86_400:
        answer = eventually(lambda: _status(client, "/readyz", 503), 3)
        assert "clock" in {p["code"] for p in answer.json["problems"]}
        told = copied.admin("/readyz").json["problems"]
        assert any("Set the clock right" in problem["hint"] for problem in told)
        result = copied.program("doctor")
        assert 1 == result.exit_code
        assert "clock" in result.stdout
    else:
        # It catches up by itself.
        assert eventually(copied.ready, 15)
    assert "Traceback" not in copied.log
    kids = {key["kid"] for key in sound.keys}
    assert kids == {key["kid"] for key in copied.program.json("keys", "list")}


async def _work_in_the_future(data, ahead):
    clock = FixedClock(datetime.now(UTC) + ahead)
    installation = open_installation(read_settings(data, {}), clock=clock)
    await installation.start()
    await installation.beat()
    await installation.close()


def _status(client, path, status):
    answer = client.get(path)
    return answer if answer.status == status else None


# --- disks ---------------------------------------------------------------------------------


def test_a_full_disk_answers_503_and_everything_goes_on_when_there_is_room(
    make_server, tmp_path
):
    """
    REV-5: 503 with Retry-After, resources and JWKS go on; then the same token works, no restart.
    """
    with small_disk(tmp_path / "disk") as disk:
        server = make_server(disk.folder / "data", environ=NO_THROTTLE)
        server._said, server._log = tmp_path / "said", tmp_path / "log"
        client = server.start().client()
        tokens, machine = client.password_grant(), client.machine_token()
        keys = server.program.json("keys", "list")

        disk.fill(server)
        refused = eventually(
            lambda: _unless(client.try_refresh(tokens["refresh_token"]), 200), 20
        )
        assert 503 == refused.status, str(refused)
        assert "temporarily_unavailable" == refused.json["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert 200 == client.api_secret(machine).status
        assert kid(machine) in client.kids()
        assert 200 == client.get("/healthz").status
        if type(disk).__name__ == "SmallDisk":
            said = server.program.fails(1, "keys", "rotate", "signing")
            assert "no room on the disk" in said
            assert "Free some space" in said

        disk.free(server)
        renewed = eventually(
            lambda: _unless(client.try_refresh(tokens["refresh_token"]), 503), 5
        )

        assert 200 == renewed.status, str(renewed)
        assert eventually(server.ready, 5)
        assert client.refresh(renewed.json["refresh_token"])
        assert keys == server.program.json("keys", "list")
        assert "Traceback" not in server.log
        findings = server.program.json("doctor")
        # The disk is small; nothing else is amiss.
        amiss = {f["code"] for f in findings if f["verdict"] != "good"}
        assert amiss <= {"database.room"}
        server.close()


def _unless(answer, status):
    return None if answer.status == status else answer


@pytest.mark.parametrize("blocks", [0, 4, 40, 100])
def test_K4_a_demo_that_found_no_room_is_made_once_there_is(make_server, blocks):
    """
    However far it got: a clear text, never a traceback, and then one ring and one set of keys.
    """
    lead = ("bash", "-c", f'ulimit -f {blocks}; exec "$@"', "limited")
    cramped = make_server(lead=lead, environ={"PYTHONDONTWRITEBYTECODE": "1"})
    cramped.launch()
    eventually(lambda: cramped.is_over or cramped.probe("/readyz"), 60)
    was_ready = not cramped.is_over and cramped.ready()
    if not cramped.is_over:
        cramped.kill()

    roomy = make_server(port=cramped.port)
    roomy.start()

    assert not was_ready
    assert "Traceback" not in cramped.log
    listed = roomy.program.json("keys", "list")
    assert FIRST_KEYS == Counter((key["use"], key["algorithm"]) for key in listed)
    assert 1 == len(list((roomy.data / "ring").glob("key-*.xml")))
    assert roomy.client().password_grant()


def test_a_read_only_folder_stops_the_start_and_is_told(copied, sound, tmp_path):
    """
    Exit 3 and what to do about it, for an existing folder, for a new one, and for commands.
    """
    copied._lead = AS_OWNER_ONLY
    with read_only(copied.data):
        text = copied.refuses()
        before = contents(copied.data)
    parent = tmp_path / "parent"
    parent.mkdir()
    with read_only(parent):
        fresh = Server(parent / "data", lead=AS_OWNER_ONLY)
        fresh._said, fresh._log = tmp_path / "said", tmp_path / "log"
        told = fresh.refuses()

    assert "is read-only" in text
    assert "right to write" in text
    assert "cannot be made" in told
    assert "--data FOLDER" in told
    assert (
        dict(contents(sound.data))["ring/state-1.xml"]
        == dict(before)["ring/state-1.xml"]
    )
    copied._lead = ()
    copied.start()
    assert copied.client().refresh(sound.refresh_token)
    assert {k["kid"] for k in sound.keys} == {
        k["kid"] for k in copied.program.json("keys", "list")
    }


# --- while it runs -------------------------------------------------------------------------


def test_K5_a_ring_that_becomes_unreadable_serves_on_and_mints_nothing(copied, sound):
    """
    The last good ring serves; not ready and told until the file is back.
    """
    copied.start()
    client = copied.client()
    token = client.refresh(sound.refresh_token)["refresh_token"]
    whole = key_file(copied.data).read_bytes()

    key_file(copied.data).write_bytes(whole[:500])
    before = ring_of(copied.data)
    unready = eventually(lambda: _status(client, "/readyz", 503), 20, 0.1)
    assert unready
    assert "ring.malformed" in {p["code"] for p in unready.json["problems"]}
    for _ in range(3):
        token = client.refresh(token)["refresh_token"]
    assert 200 == client.api_secret(client.machine_token()).status
    assert before == ring_of(copied.data)
    assert "ring.unreadable" in copied.log

    key_file(copied.data).write_bytes(whole)

    assert eventually(copied.ready, 20, 0.1)
    assert client.refresh(token)
    assert sound.keys == copied.program.json("keys", "list")


def test_a_database_that_is_taken_away_is_told_and_not_made_anew(copied, sound):
    """
    No answer pretends that tokens are bad; put back and started again, all is there.
    """
    copied.start()
    client = copied.client()
    machine = client.machine_token()
    token = client.refresh(sound.refresh_token)["refresh_token"]
    away = copied.data.with_name("away")
    away.mkdir()
    for path in copied.data.glob("kagimori.db*"):
        path.rename(away / path.name)

    answer = eventually(lambda: _unless(client.try_refresh(token), 200), 5)
    unready = eventually(lambda: _status(client, "/readyz", 503), 5)

    assert answer.status in (500, 503), str(answer)
    assert "invalid_grant" not in str(answer)
    assert unready
    told = copied.admin("/readyz").json["problems"]
    assert any("removed or replaced" in problem["text"] for problem in told), told
    assert any("restart" in problem["hint"] for problem in told)
    assert 200 == client.api_secret(machine).status
    assert "Traceback" not in copied.log
    copied.kill()
    assert not list(copied.data.glob("kagimori.db*"))
    for path in away.iterdir():
        path.rename(copied.data / path.name)
    copied.start()
    assert copied.client().refresh(token)
    assert sound.keys == copied.program.json("keys", "list")
