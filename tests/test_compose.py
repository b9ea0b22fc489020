"""
Opening an installation: what is there is opened, what must be there is never made.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest

from kagimori.compose import Issuers, is_transient, open_installation, opened
from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    KagimoriError,
    KeyWrapError,
    RingMissingError,
    RingUnreadableError,
    StoreError,
)
from kagimori.founding import demo_settings, open_demo
from kagimori.high_water import Part
from kagimori.http.live import Live
from kagimori.keys.journal import Cause
from kagimori.keys.timeline import KeyUse
from kagimori.settings import Settings, read_settings, write_settings
from kagimori.testing.clock import FixedClock
from tests.http.world import Recorder, template

CAUSE = Cause("test")


@asynccontextmanager
async def started(data, clock=None, recorder=None):
    settings = read_settings(data, {})
    async with opened(settings, clock=clock or FixedClock(), events=recorder) as found:
        await found.start()
        yield found


def folder(tmp_path):
    data = tmp_path / "data"

    async def copy():
        shutil.copytree(await template(), data)

    asyncio.run(copy())
    return data


def fault(data, work=None):
    """
    Return what opening (and starting) says of a damaged folder.
    """

    async def scene():
        async with started(data) as found:
            if work is not None:
                await work(found)

    with pytest.raises(KagimoriError) as caught:
        asyncio.run(scene())
    return caught.value


# --- issuers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issuer", "tenant", "host", "expected"),
    [
        ("https://a.example", "default", None, "https://a.example"),
        ("https://a.example", "acme", None, "https://a.example/t/acme"),
        ("https://a.example/auth", "acme", None, "https://a.example/auth/t/acme"),
        ("https://a.example", "acme", "acme.example", "https://acme.example"),
        ("https://a.example:8443", "acme", "acme.example", "https://acme.example:8443"),
        ("https://a.example:8443", "acme", "acme.example:9", "https://acme.example:9"),
        ("http://localhost:3000", "acme", "::1", "http://[::1]:3000"),
    ],
)
def test_A17_issuers_follow_from_configuration(issuer, tenant, host, expected):
    """
    A tenant's issuer is built from the settings and the tenant's own host, nothing else.
    """
    issuers = Issuers(Settings(issuer=issuer))
    issuers.set_hosts({} if host is None else {tenant: host})

    assert expected == issuers.context(tenant).issuer


def test_the_settings_host_of_a_tenant_wins_over_its_documents():
    """
    kagimori.toml has the last word.
    """
    issuers = Issuers(
        Settings(issuer="https://a.example", tenants={"acme": "x.example"})
    )

    hosts = issuers.set_hosts({"acme": "y.example", "beta": "b.example:80"})

    assert {"x.example": "acme", "b.example": "beta"} == hosts


def test_what_is_remembered_of_issuers_is_bounded():
    """
    Names of tenants stand in paths, so anybody may make them up.
    """
    issuers = Issuers(Settings(issuer="https://a.example"))
    for number in range(20_000):
        issuers.context(f"t{number}")

    assert len(issuers._contexts) <= 10_000


# --- opening -------------------------------------------------------------------------------


def test_what_is_there_is_opened(tmp_path):
    """
    After the start the keys serve and nothing stands against being ready.
    """

    async def scene():
        data = tmp_path / "data"
        shutil.copytree(await template(), data)
        async with started(data) as found:
            now = found.clock.now()
            return (
                found.problems(now),
                found.may_serve,
                [key.use for key in await found.keys.list("default")],
            )

    problems, may_serve, uses = asyncio.run(scene())

    assert () == problems
    assert may_serve
    assert ["signing", "signing", "cookie", "protection"] == uses


def test_K5_a_missing_ring_is_never_replaced(tmp_path):
    """
    The database is there, its ring is gone: refused with the ring's place; nothing is made.
    """
    data = folder(tmp_path)
    shutil.rmtree(data / "ring")

    error = fault(data)

    assert isinstance(error, RingMissingError)
    assert str(data / "ring") in error.text
    assert not is_transient(error)
    assert not list((data / "ring").glob("*")) if (data / "ring").exists() else True


def test_K5_a_demo_whose_ring_is_gone_is_not_made_anew(tmp_path):
    """
    Starting the demo again does not mint a ring beside a database either.
    """
    data = folder(tmp_path)
    shutil.rmtree(data / "ring")

    with pytest.raises(RingMissingError):
        asyncio.run(open_demo(demo_settings(data, {}), clock=FixedClock()))


def test_a_missing_database_is_told(tmp_path):
    """
    The text says where it was looked for, the hint to restore it.
    """
    data = folder(tmp_path)
    for path in data.glob("kagimori.db*"):
        path.unlink()

    error = fault(data)

    assert isinstance(error, StoreError)
    assert "kagimori.db" in error.text
    assert "backup" in error.hint
    assert not (data / "kagimori.db").exists()


def test_a_corrupt_database_is_told(tmp_path):
    """
    Garbage in the file is an error with a sentence and a hint, no traceback and no new key.
    """
    data = folder(tmp_path)
    (data / "kagimori.db").write_bytes(b"garbage" * 4096)

    error = fault(data)

    assert isinstance(error, StoreError)
    assert not is_transient(error)
    assert error.text
    assert error.hint


def test_a_corrupt_ring_file_is_told(tmp_path):
    """
    Unreadable is not absent: no key is made in its place.
    """
    data = folder(tmp_path)
    files = sorted((data / "ring").glob("key-*.xml"))
    files[0].write_text("<key")
    before = sorted(path.name for path in (data / "ring").iterdir())

    error = fault(data)

    assert isinstance(error, RingUnreadableError | RingMissingError)
    assert error.text
    assert before == sorted(path.name for path in (data / "ring").iterdir())


def test_a_wrong_passphrase_is_told(tmp_path):
    """
    The error is permanent, names the ring, and shows neither passphrase.
    """
    data = folder(tmp_path)
    right = (data / "passphrase").read_text().strip()
    (data / "passphrase").write_text("another-passphrase\n")
    before = sorted((data / "ring").iterdir())

    error = fault(data)

    assert isinstance(error, KeyWrapError | RingUnreadableError)
    assert not is_transient(error)
    assert right not in f"{error} {error.detail}"
    assert "another-passphrase" not in f"{error} {error.detail}"
    assert before == sorted((data / "ring").iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_K11_a_passphrase_that_others_may_read_is_refused(tmp_path, mode):
    """
    The server refuses loose modes on what opens its ring.
    """
    data = folder(tmp_path)
    (data / "passphrase").chmod(mode)

    error = fault(data)

    assert isinstance(error, InsecureConfigError)
    assert "chmod 600" in error.hint


@pytest.mark.parametrize(
    ("mode", "good"), [(0o700, True), (0o755, True), (0o770, False), (0o707, False)]
)
def test_K11_a_folder_that_others_may_write_is_refused(tmp_path, mode, good):
    """
    Whoever can write there can put another database in place.
    """
    data = folder(tmp_path)
    data.chmod(mode)

    if good:
        open_and_close(data)
    else:
        assert isinstance(fault(data), InsecureConfigError)


def open_and_close(data):
    async def scene():
        async with started(data):
            pass

    asyncio.run(scene())


def test_a_wrapper_is_named_by_the_settings_alone(tmp_path, monkeypatch):
    """
    Where the file names none, the environment of some application is not asked.
    """
    data = folder(tmp_path)
    monkeypatch.setenv("KAGIMORI_RING_WRAPPER", "plaintext:")
    settings = msgspec.structs.replace(read_settings(data, {}), wrapper=None)

    with pytest.raises(ConfigError, match="no wrapper"):
        open_installation(settings, clock=FixedClock())


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("postgresql://user@db/k", "not supported"),
        ("mysql://db/k", "no database"),
        ("sqlite:relative.db", "no database"),
        ("sqlite://host/k.db", "no database"),
    ],
)
def test_a_store_that_cannot_be_opened_is_named(tmp_path, store, said):
    """
    An unknown kind of database is told before anything is opened.
    """
    data = folder(tmp_path)
    settings = msgspec.structs.replace(read_settings(data, {}), store=store)

    with pytest.raises(ConfigError, match=said):
        open_installation(settings, clock=FixedClock())


# --- the high-water mark -------------------------------------------------------------------


def test_K7_a_restored_database_is_not_served_until_accepted(tmp_path):
    """
    Unready and silent, loudly; after the acceptance by name it serves.
    """
    data = folder(tmp_path)
    backup = tmp_path / "backup"

    async def scene():
        async with started(data) as found:
            await found.beat()
        shutil.copytree(data, backup)
        async with started(data) as found:
            await found.beat()
        for path in data.glob("kagimori.db*"):
            path.unlink()
        shutil.copy(backup / "kagimori.db", data / "kagimori.db")
        recorder = Recorder()
        async with started(data, recorder=recorder) as found:
            live = Live()
            live.serve(found)
            before = (
                found.may_serve,
                [e.code for e in found.problems(found.clock.now())],
            )
            with pytest.raises(KagimoriError):
                live.services()
            await found.beat()
            await found.accept_restored(Part.DATABASE)
            live.judge()
            after = (found.may_serve, found.problems(found.clock.now()))
            return before, after, live.services(), [e.name for e in recorder.events]

    before, after, services, names = asyncio.run(scene())

    assert (False, ["restored"]) == before
    assert (True, ()) == after
    assert services is not None
    assert 1 == names.count("restored")
    assert "restored.accepted" in names


def test_K7_a_restored_ring_is_not_served_either(tmp_path):
    """
    The ring's generation is below what the folder remembers.
    """
    data = folder(tmp_path)
    backup = tmp_path / "backup"

    async def scene():
        shutil.copytree(data / "ring", backup)
        async with started(data) as found:
            await asyncio.to_thread(found.ring.rotate)
            await found.beat()
        shutil.rmtree(data / "ring")
        shutil.copytree(backup, data / "ring")
        async with started(data) as found:
            before = found.may_serve
            await found.accept_restored(Part.RING)
            return before, found.may_serve

    assert (False, True) == asyncio.run(scene())


def test_K7_another_process_at_work_is_never_taken_for_a_backup(tmp_path):
    """
    Counts that others raise and mark meanwhile, and a ring that others turn, alarm nobody.
    """
    data = folder(tmp_path)

    async def scene():
        seen = []
        recorder = Recorder()
        async with started(data, recorder=recorder) as one, started(data) as two:

            async def beats():
                for _ in range(30):
                    await two.beat()

            async def looks():
                for _ in range(60):
                    await one.check_marks()
                    seen.append(one.may_serve)
                    await asyncio.sleep(0)

            await asyncio.gather(beats(), looks())
            await asyncio.to_thread(two.ring.rotate)
            await two.beat()
            await one.check_marks()
            seen.append(one.may_serve)
        return seen, [event.name for event in recorder.events]

    seen, names = asyncio.run(scene())

    assert 61 == len(seen)
    assert all(seen)
    assert "restored" not in names


def test_K7_a_ring_that_cannot_be_read_is_not_taken_for_a_restored_one(
    tmp_path, monkeypatch
):
    """
    Another process turned the ring and its place does not answer: what was in order serves on.

    A process that never had it in order, and one that knows it is restored, serve nothing.
    """
    data = folder(tmp_path)

    def cut(found):
        def fails():
            raise StoreError("the share hangs", transient=True)

        monkeypatch.setattr(found.ring._loader.store, "load", fails)

    async def scene():
        seen = []
        async with started(data) as one, started(data) as two:
            async with opened(read_settings(data, {}), clock=FixedClock()) as late:
                await asyncio.to_thread(two.ring.rotate)
                await two.beat()
                for found in (one, late):
                    cut(found)
                    await found.check_marks()
                    seen.append(found.may_serve)
            monkeypatch.undo()
            await one.check_marks()
            seen.append(one.may_serve)
            two.high_water.raise_to(Part.RING, two.ring.generation + 1)
            await one.check_marks()
            seen.append(one.may_serve)
            cut(one)
            await one.check_marks()
            seen.append(one.may_serve)
        return seen

    assert [True, False, True, False, False] == asyncio.run(scene())


# --- living --------------------------------------------------------------------------------


def test_a_change_by_another_process_is_seen_at_the_next_poll(tmp_path):
    """
    A rotation, a client and a tenant's host arrive without a restart.
    """
    data = folder(tmp_path)

    async def scene():
        async with started(data) as one, started(data) as two:
            first = await one.poll(), await one.poll()
            await two.keys.rotate("default", KeyUse.SIGNING, cause=CAUSE)
            await two.tenants.create("acme", name="A", host="acme.example", cause=CAUSE)
            changed = await one.poll()
            now = one.clock.now()
            kids = len(list(one.rings.verification_keys("default", now)))
            return first[1], changed, kids, dict(one.hosts), await one.poll()

    quiet, changed, kids, hosts, after = asyncio.run(scene())

    assert (False, True, False) == (quiet, changed, after)
    assert 3 == kids
    assert {"acme.example": "acme"} == hosts


def test_K7_a_clock_out_of_step_is_not_ready(tmp_path):
    """
    A clock set back behind the database's time is told; set right it is ready again.
    """
    data = folder(tmp_path)
    clock = FixedClock()

    async def scene():
        async with started(data, clock) as found:
            clock.advance(timedelta(hours=1))
            await found.beat()
            await found.poll()
            good = [e.code for e in found.problems(found.clock.now())]
            clock.advance(-timedelta(hours=1))
            await found.check_marks()
            bad = found.problems(found.clock.now())
            clock.advance(timedelta(hours=1))
            await found.check_marks()
            return good, bad, found.problems(found.clock.now())

    good, bad, again = asyncio.run(scene())

    assert [] == good
    assert "clock" in [each.code for each in bad]
    assert any("clock" in each.text and each.hint for each in bad)
    assert () == again


def test_a_store_that_stops_answering_is_told_and_recovers(tmp_path, monkeypatch):
    """
    Unready while the database is gone from its place; the last good keys serve on.
    """
    data = folder(tmp_path)

    async def scene():
        async with started(data) as found:
            real = found.store.change_counter

            async def fails():
                raise StoreError("no answer", transient=True)

            monkeypatch.setattr(found.store, "change_counter", fails)
            with pytest.raises(StoreError):
                await found.poll()
            codes = [e.code for e in found.problems(found.clock.now())]
            keys = list(found.rings.verification_keys("default", found.clock.now()))
            monkeypatch.setattr(found.store, "change_counter", real)
            await found.poll()
            return codes, keys, found.problems(found.clock.now())

    codes, keys, after = asyncio.run(scene())

    assert ["store"] == codes
    assert keys
    assert () == after


def test_a_change_is_learned_at_a_later_poll_where_learning_failed(
    tmp_path, monkeypatch
):
    """
    The store says once that something changed; a failure right after does not lose that.
    """
    data = folder(tmp_path)

    async def scene():
        async with started(data) as one, started(data) as two:
            await one.poll()
            await two.tenants.create("acme", name="A", host="acme.example", cause=CAUSE)
            real = one.services.warm

            async def fails():
                raise StoreError("busy", transient=True)

            monkeypatch.setattr(one.services, "warm", fails)
            with pytest.raises(StoreError):
                await one.poll()
            monkeypatch.setattr(one.services, "warm", real)
            return await one.poll(), dict(one.hosts), await one.poll()

    assert (True, {"acme.example": "acme"}, False) == asyncio.run(scene())


def test_a_process_that_cannot_confirm_its_keys_is_not_ready(tmp_path):
    """
    After half a minute without news of them; the next answer of the store makes it ready.
    """
    data = folder(tmp_path)
    clock = FixedClock()

    async def scene():
        async with started(data, clock) as found:
            seen = []
            for step in (29, 1):
                clock.advance(timedelta(seconds=step))
                await found.check_marks()
                seen.append([e.code for e in found.problems(clock.now())])
            await found.poll()
            return *seen, found.problems(clock.now())

    assert ([], ["ring.unreadable"], ()) == asyncio.run(scene())


def test_one_tenants_damaged_keys_leave_the_process_ready(tmp_path):
    """
    As long as one tenant's keys are confirmed there is something to serve.
    """
    data = folder(tmp_path)

    async def scene():
        async with started(data) as found:
            await found.tenants.create("acme", name="A", cause=CAUSE)
            await found.poll()
            held = found.rings._holdings.tenants
            now = found.clock.now()
            seen = []
            for tenant in ("acme", "default"):
                held[tenant].manager._fresh = None
                seen.append([e.code for e in found.problems(now)])
            return seen

    assert [[], ["ring.unreadable"]] == asyncio.run(scene())


def test_marks_are_written_off_the_event_loop(tmp_path, monkeypatch):
    """
    Another process may hold the lock, and a disk may hang: requests are served all the same.
    """
    data = folder(tmp_path)

    async def scene():
        async with started(data) as found:
            threads = []
            real = found.high_water.raise_to

            def spied(part, count):
                threads.append(threading.current_thread() is threading.main_thread())
                real(part, count)

            monkeypatch.setattr(found.high_water, "raise_to", spied)
            await found.beat()
            return threads

    assert [False, False] == asyncio.run(scene())


def test_a_moved_folder_still_opens(tmp_path):
    """
    Nothing in it names its own place.
    """
    data = folder(tmp_path)
    moved = tmp_path / "elsewhere"
    data.rename(moved)

    open_and_close(moved)


def test_what_is_written_by_one_opening_is_read_by_the_next(tmp_path):
    """
    Settings written again open the same installation.
    """
    data = folder(tmp_path)
    write_settings(read_settings(data, {}))

    open_and_close(data)
