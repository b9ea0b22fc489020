"""
Measure figures, keep their results, and write the table of `docs/performance.md`.

    python -m bench              every figure
    python -m bench verify start these
    python -m bench --table      only write the table again
"""

from __future__ import annotations

import sys

from bench import families, library, rings, service
from bench.figure import MissingPeerError
from bench.machine import conditions
from bench.table import write_table

FIGURES = {**library.FIGURES, **rings.FIGURES, **service.FIGURES, **families.FIGURES}


def main(names: list[str]) -> int:
    """
    Measure the named figures, or all; return 1 where one is missed or cannot be had.
    """
    if names == ["--table"]:
        write_table()
        return 0
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"No figure {unknown[0]}. There are: {', '.join(FIGURES)}")
        return 2
    failed = False
    for name in names or FIGURES:
        print(f"{name}: measuring", flush=True)
        before = conditions()
        try:
            figure = FIGURES[name]()
        except MissingPeerError as exc:
            print(f"{name}: left out: {exc}", flush=True)
            failed = True
            continue
        figure.save(before)
        lowest, highest = min(figure.values), max(figure.values)
        print(
            f"{name}: {figure.median:.3f} ({lowest:.3f} to {highest:.3f}),"
            f" bar {figure.better.value} {figure.bar:g}:"
            f" {'met' if figure.met else 'MISSED'}",
            flush=True,
        )
        failed |= not figure.met
    write_table()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
