"""
What the command line says, in the languages it speaks.

Rules of this module:

1. A text has a key; the catalogues of all languages hold the same keys (a test enforces it).
2. An error is translated by its stable code and parameters; where a catalogue has no entry for
   a code, the error's own English text and hint are shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib import resources

from kagimori.errors import KagimoriError

LANGUAGES = ("en", "ja")


class Texts:
    """
    The catalogue of one language.
    """

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "en"
        self._entries = _catalogue(self.language)

    def __call__(self, key: str, /, **params: object) -> str:
        """
        Return the text of `key` with its parameters filled in.

        Raises:
            KeyError: no catalogue has such a key.
        """
        return self._entries[key].format_map(params)

    def has(self, key: str) -> bool:
        """
        Whether the catalogue holds `key`.
        """
        return key in self._entries

    def error(self, error: KagimoriError) -> tuple[str, str]:
        """
        Return the sentence that says what happened and the one that says what to do.
        """
        return (
            self._of_error(f"error.{error.code}", error.params, error.text),
            self._of_error(f"hint.{error.code}", error.params, error.hint)
            if error.hint
            else "",
        )

    def _of_error(self, key: str, params: Mapping[str, str], plain: str) -> str:
        # English texts of errors stand where they are raised; catalogues of other languages
        # translate those whose parameters fit. `said` is the English text itself.
        template = self._entries.get(key)
        if template is None:
            return plain
        try:
            return template.format_map({"said": plain, **params})
        except (KeyError, IndexError):
            return plain


@cache
def _catalogue(language: str) -> Mapping[str, str]:
    source = resources.files("kagimori.cli") / "locales" / f"{language}.json"
    entries: dict[str, str] = json.loads(source.read_text("utf-8"))
    return entries


def language_of_environment(environ: Mapping[str, str] | None = None) -> str:
    """
    Return the language that the environment asks for, as POSIX orders the variables.
    """
    env = os.environ if environ is None else environ
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = env.get(name, "")
        if value:
            return "ja" if value.lower().startswith("ja") else "en"
    return "en"
