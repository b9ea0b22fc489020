"""
What the README, the documents and the Makefile say of each other.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from kagimori.cli.main import main
from tests.meta.tree import ROOT, tree_files

PAGES = [path for path in tree_files() if path.suffix == ".md"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def page_id(path: Path) -> str:
    """
    Return the name of a page for a test's name.
    """
    return str(path.relative_to(ROOT))


def code(path: Path) -> list[tuple[str, str]]:
    """
    Return the fenced blocks of a page without their comments.
    """
    return [
        (language, re.sub(r" *#(?: |$).*", "", block))
        for language, block in FENCE.findall(path.read_text("utf-8"))
    ]


def make_targets() -> set[str]:
    """
    Return the targets that the Makefile declares.
    """
    text = (ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    return set(phony.split())


def test_make_alone_lists_every_task():
    """
    `make` lists each target with its sentence.
    """
    said = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", said, re.MULTILINE))
    assert make_targets() == set(listed)


def test_ci_calls_the_test_command_of_the_readme():
    """
    What the README promises is what CI runs, before anything else.
    """
    steps = re.findall(
        r"^step (\S+)$", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE
    )

    assert steps == ["test", "lint", "types", "layers", "coverage"]
    assert "make test" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_commands_that_a_page_names_exist(path: Path):
    """
    Each `make` target and each `kagimori` command in a page's code is there.
    """
    text = path.read_text("utf-8")
    spans = "\n".join(re.findall(r"`([^`\n]+)`", text))
    shown = "\n".join([spans, *(block for _, block in code(path))])

    for target in re.findall(r"^(?:\$ )?make ([a-z-]+)\b", shown, re.MULTILINE):
        assert target in make_targets()
    for words in re.findall(r"^(?:\$ )?kagimori ([a-z][a-z ]*)", shown, re.MULTILINE):
        command: click.Command = main
        context = click.Context(main)
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(context, word)
            assert found is not None, f"kagimori {words}"
            command = found


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_of_a_page_lead_somewhere(path: Path):
    """
    Each relative link points at a file of this tree.
    """
    links = LINK.findall(path.read_text("utf-8"))

    broken = [
        link
        for link in links
        if "://" not in link and not (path.parent / link).resolve().exists()
    ]
    assert [] == broken


def test_both_readmes_show_the_same_code():
    """
    The English and the Japanese README differ in words only.
    """
    assert code(ROOT / "README.md") == code(ROOT / "README.ja.md")


def test_both_readmes_have_the_same_shape():
    """
    The same headings, pictures, tables and links stand in the same order.
    """

    def shape(name: str) -> list[tuple[str, int]]:
        text = FENCE.sub("", (ROOT / name).read_text("utf-8"))
        return [
            (line[:2] if line[:1] in "#|-!" else "[", len(LINK.findall(line)))
            for line in text.splitlines()
            if line[:1] in ("#", "|", "-", "!") and "README." not in line
        ]

    assert shape("README.md") == shape("README.ja.md")


def test_decisions_are_numbered_without_gaps():
    """
    Each decision record has its number, its two options and its reason.
    """
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))

    numbers = [int(path.name[:4]) for path in records]
    assert numbers == list(range(len(numbers)))
    for path in records[1:]:
        headings = re.findall(r"^## (.+)$", path.read_text("utf-8"), re.MULTILINE)
        assert headings[:3] == ["Options", "Decision", "Why"], path.name
