"""
Play both acts, and tell what happens: `make demo-swap`.

    python -m demos.swap [--lang en|ja] [--requests N]

The exit code is 0 if both came out as they must.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from demos.swap.browser import Tally
from demos.swap.operator import OperatorError
from demos.swap.slots import SlotError, find_dotnet
from demos.swap.story import Stage, cure, problem
from demos.swap.words import WORDS
from kagimori.cli.output import pad
from kagimori.cli.texts import language_of_environment

_SAYERS = 8
_SHOWN = ("requests", "signed_out", "forms", "refused", "rotations")


class Teller:
    """
    Writes calmly what happens, in one language.
    """

    def __init__(self, language: str, show: Callable[[str], object] = print) -> None:
        self._words = WORDS[language]
        self._show = show

    def say(self, who: str, key: str, /, **params: object) -> None:
        """
        Tell one thing: who, and the text with what is in it.
        """
        self._show(f"  {pad(self._words[who], _SAYERS)} {self.text(key, **params)}")

    def text(self, key: str, /, **params: object) -> str:
        """
        Return a text with what is in it.
        """
        return self._words[key].format_map(params)

    def title(self, key: str) -> None:
        """
        Begin an act.
        """
        self._show(f"\n{self.text(key)}\n")

    def tell(self, line: str) -> None:
        """
        Write one line.
        """
        self._show(line)


def play(stage: Stage, teller: Teller) -> bool:
    """
    Play both acts, and tell the tally; return whether both came out as they must.
    """
    teller.title("problem")
    without = problem(stage)
    teller.title("cure")
    having = cure(stage)
    teller.tell("")
    for line in _table(teller, without, having):
        teller.tell(line)
    return not without.faults and not having.faults


def _table(teller: Teller, *tallies: Tally) -> list[str]:
    heads = [teller.text(key) for key in ("of_problem", "of_cure")]
    names = [field.name for field in fields(Tally) if field.name in _SHOWN]
    lines = [("", *heads)] + [
        (teller.text(name), *(str(getattr(tally, name)) for tally in tallies))
        for name in names
    ]
    return [
        f"  {pad(name, 20)} {pad(first, 12)} {second}" for name, first, second in lines
    ]


def main(arguments: Sequence[str]) -> int:
    """
    Play, and return the exit code.
    """
    words = WORDS[language_of_environment()]
    parser = argparse.ArgumentParser("make demo-swap", description=words["help"])
    parser.add_argument("--lang", choices=WORDS, help=words["help_lang"])
    parser.add_argument(
        "--requests", type=int, default=200, help=words["help_requests"]
    )
    chosen = parser.parse_args(arguments)
    language = chosen.lang or language_of_environment()
    teller = Teller(language)
    folder = Path(tempfile.mkdtemp(prefix="kagimori-demo-"))
    passed = False
    try:
        stage = Stage(folder, teller.say, find_dotnet(), chosen.requests, language)
        passed = play(stage, teller)
    except SlotError as error:
        teller.tell(f"{teller.text('no_start')}\n{error}")
    except OperatorError as error:
        teller.tell(str(error))
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        return 130
    if passed:
        shutil.rmtree(folder)
    teller.tell("")
    teller.tell(teller.text("passed" if passed else "failed", folder=folder))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
