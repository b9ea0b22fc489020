"""
Writes what was measured into `docs/performance.md`.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from bench.figure import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN = "<!-- figures: written by `make bench`, do not edit -->"
END = "<!-- end of figures -->"


def _number(value: float) -> str:
    """
    Return a number with three digits that count.
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _row(result: dict[str, Any]) -> str:
    """
    Return the table's line of one figure.
    """
    paired = bool(result["theirs"])
    unit = result["unit"]
    times = "×" if paired else f" {unit}"
    sides = f"{_number(statistics.median(result['ours']))} {unit}"
    if paired:
        sides += f" : {_number(statistics.median(result['theirs']))} {unit}"
    cells = [
        result["title"],
        f"{result['better']} {result['bar']:g}{times}",
        f"**{_number(result['median'])}{times}**",
        f"{_number(result['lowest'])} – {_number(result['highest'])}",
        sides,
        "yes" if result["met"] else "**no**",
    ]
    return "| " + " | ".join(cells) + " |"


def write_table() -> None:
    """
    Put the results that lie in `bench/results` between the marks of the page.
    """
    results = [
        json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))
    ]
    lines = [
        BEGIN,
        "",
        "| Figure | Bar | Median | Lowest – highest | Ours : theirs | Held |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(result) for result in results),
        "",
        "How each was got:",
        "",
    ]
    for result in results:
        seen = result["conditions"]
        extra = "".join(f"; {name}: {value}" for name, value in result["extra"].items())
        lines.append(
            f"- `make bench ARGS={result['name']}`, {result['pairs']} turns"
            f" ({seen['date']}, Python {seen['python']}, SQLite {seen['sqlite']},"
            f" Node {seen['node']}, {seen['cores']} cores of {seen['processor']},"
            f" load before it {seen.get('load', 'not recorded')}):"
            f" {result['how']}{extra}."
        )
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + "\n".join([*lines, "", END]) + after, "utf-8")
