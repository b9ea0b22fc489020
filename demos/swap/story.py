"""
The two acts: what happens at a swap with two rings, and with one.

Rules of this module:

1. What is told is checked: an act of which one line does not hold has failed.
2. Time passes where it has to: a slot looks at the ring every 5 seconds. Nothing else is waited
   for.
"""

from __future__ import annotations

import secrets
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from demos.swap.browser import Browser, Tally
from demos.swap.operator import TOKEN, prove, rotate
from demos.swap.rings import Certificate, Ring
from demos.swap.slots import dotnet_slot, key_of, python_slots
from demos.swap.switch import Switch

_LOOK_SECONDS = 6.0
_PAUSE = 0.1
_FEW = 20


class Say(Protocol):
    """
    Tells what happened: who, and which text with what in it.
    """

    def __call__(self, who: str, key: str, /, **params: object) -> None:
        """
        Tell one thing.
        """
        ...


@dataclass
class Stage:
    """
    What both acts are played on.

    Attributes:
        folder: where rings and logs lie, empty at the beginning.
        dotnet: the program of .NET, where there is one.
        requests: how many the A/B phase has.
        language: what the doctor is asked to speak.
        patience: seconds by when every slot has a new key, or it is a fault.
        token: opens the slots to the doctor's questions.
    """

    folder: Path
    say: Say
    dotnet: Path | None = None
    requests: int = 200
    language: str = "en"
    patience: float = 15.0
    token: str = field(default_factory=secrets.token_urlsafe)
    certificate: Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = Certificate.made_in(self.folder)

    def ring(self, name: str) -> Ring:
        """
        Return a ring of a name.
        """
        return Ring(self.folder / name, self.certificate)

    def slots(self, blue: Ring, green: Ring) -> AbstractContextManager[list[str]]:
        """
        Run two slots of ours.
        """
        settings = {"blue": blue.variables, "green": green.variables}
        # In each slot, so that the doctor may ask; without it there is nobody to ask.
        token = {TOKEN: self.token}
        return python_slots(
            self.folder, {slot: {**ring, **token} for slot, ring in settings.items()}
        )


class Act:
    """
    One act: what its browsers met, and how its lines are told.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.say = stage.say
        self.tally = Tally()

    def tell(self, who: str, key: str, /, *, holds: bool, **params: object) -> None:
        """
        Tell one thing, if it holds; else that it does not, which is a fault.
        """
        self.tally.faults += not holds
        self.say(who, key if holds else "wrong", **params)

    def ask_doctor(self, blue: str, green: str, *, holds: bool) -> None:
        """
        Ask the doctor before the swap, and check that it foresees what comes.
        """
        slots = {"blue": blue, "green": green}
        proof = prove(slots, self.stage.token, self.stage.language)
        self.tell("doctor", "asked", holds=holds == proof.holds)
        for line in proof.lines:
            self.say("", "quoted", line=line)


def problem(stage: Stage) -> Tally:
    """
    Play the swap of two slots that have a ring each.

    It came out as it must if the user is signed out and the form is refused.
    """
    act = Act(stage)
    tally, say = act.tally, act.say
    with ExitStack() as open_now:
        switch = open_now.enter_context(Switch.standing())
        rings = stage.ring("ring-of-blue"), stage.ring("ring-of-green")
        blue, green = open_now.enter_context(stage.slots(*rings))
        alice = Browser(switch.url, tally, "alice")
        open_now.callback(alice.close)
        say("ring", "two_rings", blue=_short(key_of(blue)), green=_short(key_of(green)))

        switch.to(blue)
        alice.sign_in()
        alice.draw_form()
        act.tell("blue", "signs_in", holds=alice.is_known())
        act.ask_doctor(blue, green, holds=False)

        switch.to(green)
        say("switch", "swaps", slot="green")
        act.tell("green", "refuses_form", holds=not alice.send_form())
        act.tell("green", "knows_nobody", holds=not alice.is_known())

        switch.to(blue, green)
        say("switch", "takes_turns", requests=_FEW)
        before = tally.signed_out
        for _ in range(_FEW):
            alice.is_known()
        lost = tally.signed_out - before
        act.tell("alice", "lost", holds=lost > 0, count=lost)
    return tally


def cure(stage: Stage) -> Tally:
    """
    Play the same with one ring, and with two rotations of its key.

    It came out as it must if nobody is signed out and no form is refused.
    """
    with ExitStack() as open_now:
        return _Cure(stage, open_now).play()


class _Cure(Act):
    def __init__(self, stage: Stage, open_now: ExitStack) -> None:
        super().__init__(stage)
        self.ring = stage.ring("ring")
        self.key = ""
        self.switch = open_now.enter_context(Switch.standing())
        slots = stage.slots(self.ring, self.ring)
        self.blue, self.green = open_now.enter_context(slots)
        self.alice = Browser(self.switch.url, self.tally, "alice")
        open_now.callback(self.alice.close)
        self.third = open_now.enter_context(ExitStack())

    def play(self) -> Tally:
        self.key = key_of(self.blue)
        same = self.key == key_of(self.green)
        self.tell("ring", "one_ring", holds=same, key=_short(self.key))
        self._swap()
        if self.stage.dotnet is None:
            self.say(".NET", "no_dotnet")
        self._visit_dotnet("dotnet_joins")
        self._rotate_and_swap_back()
        self._take_turns()
        self._visit_dotnet("dotnet_once_more")
        return self.tally

    def _swap(self) -> None:
        self.switch.to(self.blue)
        self.alice.sign_in()
        self.alice.draw_form()
        self.tell("blue", "signs_in", holds=self.alice.is_known())
        self.ask_doctor(self.blue, self.green, holds=True)
        self._turn_to("green", self.green)
        self.tell("green", "accepts_form", holds=self.alice.send_form())
        self.tell("green", "knows", holds=self.alice.is_known())

    def _rotate_and_swap_back(self) -> None:
        self.switch.to(self.green)
        self.alice.draw_form()
        self.say("green", "draws")
        self._rotate()
        seconds = self._seen_after()
        self.tell("ring", "seen", holds=self._has_spread(), seconds=f"{seconds:.1f}")
        self.tell("green", "renews", holds=self.alice.is_known())
        self._visit_dotnet("dotnet_again")
        self._turn_to("blue", self.blue)
        self.tell("blue", "accepts_older_form", holds=self.alice.send_form())
        self.tell("blue", "knows", holds=self.alice.is_known())

    def _take_turns(self) -> None:
        """
        Let both slots answer in turn, with a rotation in the middle.

        After it there are as many seconds as a slot takes to look at the ring, so that one has
        the new key before the other, which then finds it by its id.
        """
        half = max(1, self.stage.requests // 2)
        self.say("switch", "takes_turns", requests=2 * half)
        self.switch.to(self.blue, self.green)
        self._turns(half, pause=0.0)
        self._rotate()
        self._turns(half, pause=_LOOK_SECONDS / half)
        self._seen_after()
        lost, refused = self.tally.signed_out, self.tally.refused
        kept = not (lost or refused) and self._has_spread()
        self.tell("alice", "kept", holds=kept, signed_out=lost, refused=refused)

    def _turns(self, count: int, pause: float) -> None:
        # Of five requests one draws a form, and the next sends it, at the other slot. Five is
        # odd, so each slot comes to draw.
        for number in range(count):
            if number % 5 == 3:
                self.alice.draw_form()
            elif number % 5 == 4:
                self.alice.send_form()
            else:
                self.alice.is_known()
            time.sleep(pause)

    def _visit_dotnet(self, arrival: str) -> None:
        """
        Start .NET on the ring, anew where it runs; it and our slots know each other's people.
        """
        if self.stage.dotnet is None:
            return
        self.third.close()
        log = self.stage.folder / "dotnet.log"
        url = self.third.enter_context(
            dotnet_slot(self.stage.dotnet, log, self.ring.dotnet_options)
        )
        self.say(".NET", arrival)
        if arrival == "dotnet_again":
            self.say(".NET", "dotnet_why")
        self.switch.to(url)
        self.tell(".NET", "knows_by_ticket", holds=self.alice.is_known())
        bob = Browser(self.switch.url, self.tally, "bob")
        bob.sign_in()
        self.switch.to(self.blue, self.green)
        known = [bob.has_ticket(), bob.has_ticket()]
        bob.close()
        self.tell("blue", "knows_bob", holds=all(known))

    def _turn_to(self, slot: str, url: str) -> None:
        self.switch.to(url)
        self.say("switch", "swaps", slot=slot)

    def _rotate(self) -> None:
        self.key = rotate(self.ring.variables)
        self.tally.rotations += 1
        self.say("ring", "rotates", key=_short(self.key))

    def _seen_after(self) -> float:
        """
        Wait until both slots protect with the newest key; return for how many seconds.
        """
        began = time.monotonic()
        while not self._has_spread() and time.monotonic() < began + self.stage.patience:
            time.sleep(_PAUSE)
        return time.monotonic() - began

    def _has_spread(self) -> bool:
        return {key_of(self.blue), key_of(self.green)} == {self.key}


def _short(key_id: str) -> str:
    return key_id[:8]
