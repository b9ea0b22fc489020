"""
``kagimori doctor``: looks at everything an installation stands on, and says what to do.
"""

from __future__ import annotations

import sys

import click

from kagimori.cli.command import EXIT_FAILURE, Command, session
from kagimori.cli.running import diagnosed

MARKS = {"good": "✓", "warning": "!", "bad": "✗"}
STYLES = {"good": "good", "warning": "warning", "bad": "error"}


@click.command("doctor", cls=Command, help="help.doctor")
@click.pass_context
def command(context: click.Context) -> None:
    """
    Check clock, database, ring, wrapping, keys and file modes; change nothing.
    """
    output = session(context).output
    findings = diagnosed(context)
    if output.as_json:
        output.json(findings)
    else:
        texts = output.texts
        for finding in findings:
            mark = output.style(MARKS[finding.verdict], STYLES[finding.verdict])
            key = f"doctor.{finding.check}"
            subject = texts(key) if texts.has(key) else finding.check
            output.line(f"{mark} {subject}: {_said(output.texts, finding)}")
            if finding.hint and finding.verdict != "good":
                output.line(f"  {texts('output.hint')} {finding.hint}")
    if any(finding.verdict == "bad" for finding in findings):
        sys.exit(EXIT_FAILURE)


def _said(texts, finding):  # type: ignore[no-untyped-def]
    return finding.text
