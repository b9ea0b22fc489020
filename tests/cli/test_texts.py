"""
The catalogues: complete, equal, and used.
"""

import json
import re
import string
from importlib import resources
from pathlib import Path

import pytest

from kagimori.cli.texts import LANGUAGES, Texts, language_of_environment
from kagimori.errors import KeyStateError, NextKeyWaitsError

LOCALES = resources.files("kagimori.cli") / "locales"
SOURCES = Path(str(resources.files("kagimori.cli")))


def catalogue(language: str) -> dict[str, str]:
    return json.loads((LOCALES / f"{language}.json").read_text("utf-8"))


def parameters(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_all_languages_hold_the_same_keys_and_parameters():
    """
    A text of one language has its twin in the other, with the same parameters.
    """
    english, japanese = catalogue("en"), catalogue("ja")
    # Errors are raised with English texts of their own: only translations need an entry.
    own = {
        key for key in english if not key.startswith(("error.", "hint.", "finding."))
    }

    assert own == {
        key for key in japanese if not key.startswith(("error.", "hint.", "finding."))
    }
    assert [
        key for key in own if parameters(english[key]) != parameters(japanese[key])
    ] == []


def test_every_text_that_the_program_names_is_there():
    """
    A key that stands in the source stands in the catalogue.
    """
    named: set[str] = set()
    pattern = re.compile(
        r'"((?:help|option|keys|tenants|clients|apis|users|tokens|output|confirm|column'
        r'|state|span|serve|init|ring)\.[a-z_.]+[a-z])"'
    )
    for source in SOURCES.rglob("*.py"):
        named |= set(pattern.findall(source.read_text("utf-8")))

    assert len(named) > 100
    assert sorted(named - set(catalogue("en"))) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ja_JP"}, "ja"),
    ],
)
def test_the_language_follows_the_environment(environ, expected):
    """
    POSIX's variables choose the language, the strongest first.
    """
    assert expected == language_of_environment(environ)


def test_a_language_that_nobody_speaks_is_english():
    """
    An unknown language falls back to English.
    """
    assert "en" == Texts("fr").language


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_keeps_its_own_words(language):
    """
    What was said when the error was raised is shown in every language.
    """
    text, hint = Texts(language).error(
        KeyStateError("The lion sleeps.", hint="Wake it.")
    )

    assert text.endswith("The lion sleeps.")
    assert "Wake it." == hint


def test_an_error_is_translated_by_its_code_and_parameters():
    """
    A catalogue's entry for a code is filled with the error's parameters.
    """
    error = NextKeyWaitsError(
        "A key waits.", kid="k1", algorithm="ES256", published="p", activates="a"
    )

    text, _ = Texts("ja").error(error)

    assert "k1" in text
    assert "待機" in text


def test_an_error_whose_parameters_do_not_fit_keeps_its_own_words():
    """
    A translation that needs parameters which the error lacks is not shown half-filled.
    """
    text, _ = Texts("ja").error(NextKeyWaitsError("A key waits."))

    assert "{" not in text
