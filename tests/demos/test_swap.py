"""
`make demo-swap`: both acts as tests, and the parts that they stand on.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from demos.swap.rings import Ring
from demos.swap.story import Stage, cure, problem
from demos.swap.words import WORDS
from tests.meta.tree import ROOT


class Lines(list):
    """
    What was told, as who and key.
    """

    def say(self, who: str, key: str, /, **params: object) -> None:
        self.append((who, key))


class OneRing(Stage):
    """
    A stage on which every ring is the same one.
    """

    def ring(self, name: str) -> Ring:
        return super().ring("ring")


class RingForEach(Stage):
    """
    A stage on which no ring is shared, whatever the act intends.
    """

    def slots(self, blue: Ring, green: Ring):
        return super().slots(blue, self.ring("other"))


@pytest.fixture
def told() -> Lines:
    return Lines()


# --- the acts ------------------------------------------------------------------------------


def test_two_rings_sign_the_user_out(tmp_path, told: Lines):
    """
    Pain 5: with a ring in each slot, the swap signs out and refuses the form; that is as it must.
    """
    tally = problem(Stage(tmp_path, told.say))

    assert (0, 11) == (tally.faults, tally.signed_out)
    assert (1, 1) == (tally.forms, tally.refused)
    assert ("alice", "lost") == told[-1]


def test_one_ring_costs_nobody_anything(tmp_path, told: Lines):
    """
    Pain 5: one ring, a swap, two rotations, 200 requests in turn: nobody is signed out.
    """
    tally = cure(Stage(tmp_path, told.say, requests=200))

    assert (0, 0, 0) == (tally.faults, tally.signed_out, tally.refused)
    assert tally.requests > 200
    assert tally.forms == 42
    assert tally.rotations == 2
    assert (".NET", "no_dotnet") in told
    assert "wrong" not in {key for _, key in told}
    # All of it lies in one folder, wrapped: three keys, none of them readable.
    keys = [path.read_text() for path in (tmp_path / "ring").glob("key-*.xml")]
    assert 3 == len(keys)
    assert all("encryptedSecret" in key and "masterKey" not in key for key in keys)


def test_an_act_that_comes_out_otherwise_fails(tmp_path, told: Lines):
    """
    A problem that does not show, and a cure that does not cure, are told and counted.
    """
    (tmp_path / "healed").mkdir()
    healed = problem(OneRing(tmp_path / "healed", told.say))
    assert (4, 0) == (healed.faults, healed.signed_out)
    assert 4 == [key for _, key in told].count("wrong")

    (tmp_path / "sick").mkdir()
    stage = RingForEach(tmp_path / "sick", told.say, requests=10, patience=0.1)
    sick = cure(stage)
    assert sick.faults > 0
    assert sick.signed_out > 0


@pytest.mark.dp_peer
def test_the_whole_demo_passes_beside_dotnet(dp_peer, tmp_path):
    """
    As `make demo-swap` runs it, in Japanese, with a short A/B phase: exit code 0, and .NET took
    part before and after each rotation.
    """
    done = subprocess.run(
        [sys.executable, "-m", "demos.swap", "--requests", "20"],
        cwd=ROOT,
        env={
            **os.environ,
            "LC_ALL": "ja_JP.UTF-8",
            "PYTHONIOENCODING": "utf-8",
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    words = WORDS["ja"]

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    for key in ("problem", "knows_nobody", "cure", "dotnet_again", "passed"):
        assert words[key] in done.stdout
    assert 3 == done.stdout.count(words["knows_by_ticket"])
    assert 3 == done.stdout.count(words["knows_bob"])
    assert words["wrong"] not in done.stdout
    # It cleans up behind itself.
    assert [] == list(tmp_path.iterdir())
