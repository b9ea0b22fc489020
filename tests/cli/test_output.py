"""
Tables, colours and JSON of the command line.
"""

import io
import json

import pytest

from kagimori.cli.output import Output, clean, pad, width
from kagimori.cli.texts import Texts


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("鍵守", 4), ("é", 1), ("", 0), ("e\u0301", 1)]
)
def test_width_counts_terminal_columns(text, columns):
    """
    East Asian wide characters take two columns, combining ones none.
    """
    assert columns == width(text)
    assert max(columns, 6) == width(pad(text, 6))


def test_columns_of_a_table_stand_under_each_other_in_both_languages():
    """
    A table's cells begin in the same terminal column, whatever the script.
    """
    out = io.StringIO()
    Output(Texts("ja"), out=out).table(
        ["名前", "状態"], [["a", "x"], ["鍵守サーバー", "y"]]
    )

    lines = out.getvalue().splitlines()
    places = {
        width(line[: line.index(mark)])
        for line, mark in zip(lines, "状xy", strict=False)
    }
    assert {14} == places


def test_S4_control_characters_never_reach_a_terminal():
    """
    A name that holds escape sequences is shown with them spelled out.
    """
    out = io.StringIO()
    Output(Texts("en"), out=out).table(["NAME"], [["evil\x1b[2J\nname"]])

    assert "\x1b" not in out.getvalue()
    assert "evil\\x1b[2J\\x0aname" == clean("evil\x1b[2J\nname")


def test_colour_is_for_terminals_only(monkeypatch):
    """
    A terminal gets colours; a pipe and `NO_COLOR` get none.
    """
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, coloured = io.StringIO(), Terminal()
    for stream in (plain, coloured):
        Output(Texts("en"), out=stream).table(["STATE"], [["current"]], state=0)

    assert "\x1b[" not in plain.getvalue()
    assert "\x1b[32m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    silent = Terminal()
    Output(Texts("en"), out=silent).table(["STATE"], [["current"]], state=0)
    assert "\x1b[" not in silent.getvalue()


def test_json_output_is_one_value_and_nothing_else():
    """
    With JSON asked for, lines and tables are silent and notices go to standard error.
    """
    out, err = io.StringIO(), io.StringIO()
    output = Output(Texts("en"), as_json=True, out=out, err=err)

    output.line("no")
    output.table(["NO"], [["no"]])
    output.json({"kid": "a"})
    output.error("It broke.", "Mend it.")

    assert {"kid": "a"} == json.loads(out.getvalue())
    assert "It broke." in err.getvalue()
    assert "Mend it." in err.getvalue()
