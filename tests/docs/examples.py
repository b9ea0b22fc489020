"""
The examples of the documents, as they stand there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """
    A document with its examples.
    """

    path: Path

    def blocks(self, language: str) -> list[str]:
        """
        Return the blocks of a language, in order.
        """
        found = _FENCE.findall(self.path.read_text("utf-8"))
        return [text for name, text in found if name == language]

    @property
    def python(self) -> str:
        """
        The page's Python, as one program.
        """
        return "\n".join(self.blocks("python"))

    @property
    def shell(self) -> str:
        """
        The page's shell commands as one script. `make` is left to `tests/meta`.
        """
        blocks = self.blocks("sh")
        return "\n".join(
            block
            for block in blocks
            if not all(line.startswith("make") for line in block.splitlines())
        )


def pages_with(language: str) -> list[Page]:
    """
    Return the pages that have examples in a language.
    """
    pages = [Page(path) for path in PAGES]
    if language == "python":
        return [page for page in pages if page.python]
    return [page for page in pages if page.shell]
