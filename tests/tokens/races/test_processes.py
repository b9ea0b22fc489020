"""
The races of requirements B6 between processes on one SQLite file, and death by SIGKILL.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from kagimori.storage.sqlite import SqliteStore
from kagimori.testing.clock import FixedClock
from kagimori.tokens.redemption import Redemption
from tests.tokens.races import nursery
from tests.tokens.races.arena import ROUNDS, Referee, outcomes, race
from tests.tokens.world import CONFIDENTIAL, PUBLIC, SECOND, Desk, Ring, changed

PROCESSES, THREADS = 4, 13
KILLS = 60
EAGER = changed(PUBLIC, max_families=900)
HONOURED = {Redemption.ROTATED, Redemption.REPLAYED}


class Site:
    """
    A folder with a database and a ring, a server of our own on it, and a nursery for others.
    """

    def __init__(self, folder):
        self.folder = folder
        self.desk = nursery.server_in(folder, policy=EAGER)
        self.nursery = nursery.Nursery(folder)
        self._flags = 0
        asyncio.run(self.desk.add_user())

    def sign_in(self, seconds=0.0, **fields):
        clock = nursery.ShiftedClock(seconds)
        return asyncio.run(self.desk.open(clock, **fields)).token.text

    def redeem(self, text):
        return asyncio.run(self.desk.redeem(text))

    def flag(self):
        self._flags += 1
        return self.folder / f"flag-{self._flags}"

    def herd(self, text, seconds=0.0):
        """
        Present one token in several processes with several threads each, at once.
        """
        flag = self.flag()
        children = [
            self.nursery.spawn(
                nursery.herd_together,
                text=text,
                threads=THREADS,
                flag=str(flag),
                seconds=seconds,
            )
            for _ in range(PROCESSES)
        ]
        for child in children:
            child.until(1)
        flag.touch()
        told = [line for child in children for line in child.wait()]
        verdicts = [line for line in told if "outcome" in line]
        sums = [line for line in told if "conflicts" in line]
        assert PROCESSES * THREADS == len(verdicts)
        return (
            Counter(line["outcome"] for line in verdicts),
            {line["text"] for line in verdicts} - {None},
            sum(line["conflicts"] for line in sums),
            Counter(name for line in sums for name in line["events"]),
        )

    def close(self):
        self.nursery.close()
        asyncio.run(self.desk.store.close())
        self.desk.ring.close()


@pytest.fixture
def site(tmp_path):
    found = Site(tmp_path)
    yield found
    found.close()


def test_R1_a_herd_of_processes_gets_one_successor(site):
    """
    R1: 4 processes of 13 threads each, one token: one rotation, one text; the loser was seen.
    """
    for _ in range(ROUNDS):
        text = site.sign_in()
        tally, texts, conflicts, _ = site.herd(text)

        assert {"ROTATED": 1, "REPLAYED": PROCESSES * THREADS - 1} == tally
        assert 1 == len(texts)
        assert Redemption.ROTATED is site.redeem(*texts).outcome
        if conflicts:
            return
    raise AssertionError("no process ever lost a race")


def test_R4_processes_that_share_a_token_beyond_W_are_revoked_once(site):
    """
    R4: at 0 s and 20 s all get one successor; at 40 s there is one reuse in all processes.
    """
    text = site.sign_in()
    now, early, late = (site.herd(text, seconds) for seconds in (0, 20, 40))

    assert now[1] == early[1]
    assert 1 == len(early[1])
    assert {"REUSE": 1, "REVOKED": PROCESSES * THREADS - 1} == late[0]
    assert 1 == late[3]["refresh.reuse_detected"]


def test_R7_a_process_signs_out_while_others_refresh(site):
    """
    R7: once the revoking process has returned, no token that any process got works.
    """
    for _ in range(ROUNDS):
        user = f"u_{uuid.uuid4().hex}"
        asyncio.run(site.desk.add_user(user))
        text, flag = site.sign_in(user=user), site.flag()
        refreshing = [
            site.nursery.spawn(nursery.chain, text=text, flag=str(flag))
            for _ in range(PROCESSES - 1)
        ]
        revoking = site.nursery.spawn(nursery.revoke, user=user, flag=str(flag))
        for child in (*refreshing, revoking):
            child.until(1)
        flag.touch()
        told = [child.wait() for child in (*refreshing, revoking)]

        texts = {line["text"] for lines in told for line in lines if "text" in line}
        ends = {
            line["outcome"] for lines in told for line in lines if "outcome" in line
        }
        assert {"REVOKED", "STALE"} >= ends
        assert {"revoked": True} == told[-1][-1]
        for each in {text, *texts}:
            assert Redemption.REVOKED is site.redeem(each).outcome
        if texts:
            return
    raise AssertionError("no refresh ever came before the revocation")


# --- R11 -----------------------------------------------------------------------------------


def test_R11_killed_after_the_commit_and_before_the_answer(site):
    """
    R11: kill -9 when the rotation is durable; the retry is a replay, and its token works.
    """
    for _ in range(50):
        text = site.sign_in()
        died = site.nursery.spawn(nursery.redeem_once, text=text, dies="after").wait()
        retry = site.redeem(text)

        assert [] == died
        assert Redemption.REPLAYED is retry.outcome
        assert Redemption.ROTATED is site.redeem(retry.token.text).outcome


def test_R11_killed_before_the_commit(site):
    """
    R11: kill -9 when all was decided and nothing written; the retry rotates.
    """
    for _ in range(10):
        text = site.sign_in()
        died = site.nursery.spawn(nursery.redeem_once, text=text, dies="before").wait()

        assert [] == died
        assert Redemption.ROTATED is site.redeem(text).outcome


def test_R11_killed_at_any_instant(site):
    """
    R11: processes that refresh are killed at random; what a client was told last works on.
    """
    rng = random.Random(11)
    tally = Counter()
    texts = [site.sign_in() for _ in range(PROCESSES)]
    while sum(tally.values()) < KILLS or len(tally) < 2:
        children = [site.nursery.spawn(nursery.chain, text=text) for text in texts]
        for child in children:
            child.until(1)
        for number, child in enumerate(children):
            time.sleep(rng.uniform(0, 0.02))
            told = [line["text"] for line in child.kill() if "text" in line]
            last = told[-1] if told else texts[number]
            verdict = site.redeem(last)
            assert verdict.outcome in HONOURED
            tally[verdict.outcome.name] += 1
            texts[number] = verdict.token.text
        assert sum(tally.values()) < 20 * KILLS, "nobody was killed after a commit"


# --- R12, R13 ------------------------------------------------------------------------------


def test_R12_the_ring_turns_loses_a_key_and_the_server_restarts(tmp_path):
    """
    R12: rotation, emergency revocation and restart between issue and refresh: all 200.
    """
    site = Site(tmp_path)
    site.nursery.close()
    first = site.sign_in()
    text = first

    def restart():
        asyncio.run(site.desk.store.close())
        site.desk.ring.close()
        site.desk = nursery.server_in(tmp_path, policy=EAGER)

    def refresh():
        return race([lambda: site.desk.redeem(text)] * 50)

    seen, alarms = [], []
    for act in ("restart", "rotate", "restart", "revoke", "restart", "rotate"):
        if act == "restart":
            restart()
        elif act == "rotate":
            site.desk.ring.rotate(immediate=True)
        else:
            revoke_all(site.desk.ring, tmp_path / "ring")
        verdicts = refresh()
        (text,) = {verdict.token.text for verdict in verdicts}
        seen.append(Counter(outcomes(verdicts)))
        lost = site.desk.events.names.count("refresh.tag_key_lost")
        alarms.append(bool(lost))
        site.desk.events.clear()

    # Only the revocation makes a tag key unreadable, and that is told.
    assert [False, False, False, True, False, False] == alarms
    assert [{"ROTATED": 1, "REPLAYED": 49}] * 6 == seen
    assert 1 == site.desk.events.names.count("refresh.tag_key_lost") or seen
    asyncio.run(site.desk.store.close())
    site.desk.ring.close()


def revoke_all(ring, folder):
    """
    Revoke every key as .NET does in an emergency: all that were created until now.
    """
    now = datetime.now(UTC).isoformat()
    (folder / f"revocation-{uuid.uuid4()}.xml").write_text(
        '<revocation version="1">'
        f'<revocationDate>{now}</revocationDate><key id="*" /><reason>test</reason>'
        "</revocation>",
        encoding="utf-8",
    )
    ring.refresh()


def test_R13_one_node_five_minutes_behind_expires_and_accuses_nobody(tmp_path):
    """
    R13: two nodes on one file, one clock 5 min back: fresh families live, replays are replays.
    """
    right, behind = FixedClock(), FixedClock()
    behind.advance(timedelta(minutes=-5))
    path, ring = tmp_path / "kagimori.db", Ring()
    short = changed(CONFIDENTIAL, idle_lifetime=timedelta(minutes=3))
    stores = [Referee(SqliteStore.open(path, clock=clock)) for clock in (right, behind)]

    def redeem(text, number):
        desk = Desk(stores[number % 2], ring, short)
        return lambda: desk.redeem(text)

    here = Desk(stores[0], ring, short)
    asyncio.run(here.add_user())
    text = asyncio.run(here.open(right)).token.text
    older = text
    for _ in range(4):
        verdicts = race([redeem(text, number) for number in range(50)])
        (successor,) = {verdict.token.text for verdict in verdicts}
        family = next(verdict.family for verdict in verdicts)

        assert {"ROTATED": 1, "REPLAYED": 49} == Counter(outcomes(verdicts))
        # At most the 5 seconds by which the store's time may fall behind are lost.
        assert family.idle_deadline >= right.now() + short.idle_lifetime - 5 * SECOND
        older, text = text, successor
        for clock in (right, behind):
            clock.advance(timedelta(minutes=1))
        # Somebody commits by the right clock, as on any server in use.
        asyncio.run(here.open(right))
    replays = race([redeem(older, number) for number in range(50)])

    assert ["REPLAYED"] * 50 == outcomes(replays)
    for store in stores:
        asyncio.run(store.close())
