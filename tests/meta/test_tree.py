"""
What must hold for the tree as a whole.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.meta.tree import ROOT, text_files, tree_files

# Written in pieces, so that this file does not find itself.
FOREIGN = re.compile(
    "|".join(
        [
            r"pypi\." + r"org",
            r"python" + r"hosted",
            r"registry\." + r"(npmjs|yarnpkg)",
            r"--(extra-)?index" + r"-url[ =]+\S*/",
            r"--find" + r"-links[ =]+\S*/",
            r"/work" + r"/(main|shared)",
            r"/tmp" + r"/kagi\b",
            r"/root" + r"/",
        ]
    )
)

TEST_FILES = [
    path
    for path in tree_files()
    if path.is_relative_to(ROOT / "tests")
    and path.name.startswith("test_")
    and path.suffix == ".py"
]


def test_no_file_names_an_index_host_or_a_path_of_one_machine():
    """
    Where packages come from, and where the tree lies, is the business of each machine.
    """
    found = [
        f"{path}:{number}: {match.group()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := FOREIGN.search(line))
    ]

    assert [] == found


def test_no_source_file_is_longer_than_400_lines():
    """
    A file is split by reason to change before it grows past 400 lines.
    """
    long = {
        str(path): lines
        for path, text in text_files()
        if path.parts[0] == "src"
        # A catalogue of texts has one reason to change, however long it is.
        and path.suffix != ".json"
        and (lines := text.count("\n")) > 400
    }

    assert {} == long


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in TEST_FILES]
)
def test_every_test_tells_a_behaviour_and_runs(path: Path):
    """
    Each test has a docstring; none is skipped, expected to fail, or stands on a mock.
    """
    source = path.read_text("utf-8")
    tests = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    ]

    silent = [test.name for test in tests if not ast.get_docstring(test)]
    may_not_run = re.findall(
        r"\b(?:mark|pytest)\.(?:skip|skipif|xfail|importorskip)\b"
        r"|\bunittest(?:\.| import )mock\b",
        source,
    )

    assert [] == silent
    assert [] == may_not_run


def test_every_package_of_ours_says_what_it_owns():
    """
    The docstring of each `__init__` says more than its name.
    """
    packages = (ROOT / "src/kagimori").rglob("__init__.py")

    silent = [
        str(path.relative_to(ROOT))
        for path in packages
        if len(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") < 40
    ]

    assert [] == silent


def test_type_ignores_and_noqas_name_their_code():
    """
    What silences a check says which one.
    """
    bare = re.compile(r"#\s*(?:type:\s*ignore(?!\[)|noqa(?!:\s*[A-Z]))")

    found = [
        f"{path}:{number}"
        for path, text in text_files()
        if path.suffix == ".py" and path.parts[:2] != ("tests", "meta")
        for number, line in enumerate(text.splitlines(), 1)
        if bare.search(line)
    ]

    assert [] == found
