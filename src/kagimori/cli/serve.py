"""
``kagimori serve``: run the server, and say calmly how it stands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from kagimori.cli.command import Command, option, session
from kagimori.cli.output import Output, pad, width
from kagimori.cli.times import stamp
from kagimori.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from kagimori.http.report import StartReport
    from kagimori.settings import Settings


@click.command("serve", cls=Command, help="help.serve")
@option("--demo", is_flag=True, help="option.demo")
@option("--listen", metavar="HOST:PORT", help="option.listen")
@option("--admin-listen", metavar="HOST:PORT", help="option.admin_listen")
@option("--workers", type=click.IntRange(1, 256), help="option.workers")
@option(
    "--trusted-proxy",
    "proxies",
    multiple=True,
    metavar="CIDR",
    help="option.trusted_proxy",
)
@option("--access-log", is_flag=True, help="option.access_log")
@click.pass_context
def command(
    context: click.Context,
    *,
    demo: bool,
    listen: str | None,
    admin_listen: str | None,
    workers: int | None,
    proxies: tuple[str, ...],
    access_log: bool,
) -> None:
    """
    Serve until told to end. SIGTERM drains; Ctrl-C ends at once.
    """
    try:
        from kagimori.http.server import serve
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"The server's part is not installed ({exc.name} is missing).",
            hint="Install it: pip install 'kagimori[server]'",
            module=exc.name or "",
        ) from None
    # Options become variables, so that every worker process sees them too.
    said = {
        "KAGIMORI_LISTEN": listen,
        "KAGIMORI_ADMIN_LISTEN": admin_listen,
        "KAGIMORI_WORKERS": str(workers) if workers else None,
        "KAGIMORI_TRUSTED_PROXIES": ",".join(proxies) or None,
        "KAGIMORI_ACCESS_LOG": "true" if access_log else None,
    }
    given = {name: value for name, value in said.items() if value}
    output = session(context).output

    def on_start(report: StartReport) -> None:
        show(output, report)

    settings = _settings(session(context).data, {**os.environ, **given}, demo=demo)
    os.environ.update(given)
    if demo:
        from kagimori.founding import open_demo

        serve(settings, on_start, opening=open_demo)
    else:
        serve(settings, on_start)


def _settings(data: str | None, environ: Mapping[str, str], *, demo: bool) -> Settings:
    from kagimori.settings import data_folder, read_settings

    folder = data_folder(data, environ)
    if demo:
        from kagimori.founding import demo_settings

        return demo_settings(folder, environ)
    settings = read_settings(folder, environ)
    if settings.demo:
        raise RefusedError(
            f"{folder} is a demo world: its users and secrets are published.",
            hint="Start it with --demo, or make a real installation: kagimori init",
            folder=str(folder),
        )
    return settings


def show(output: Output, report: StartReport) -> None:
    """
    Say in a few calm lines how the server stands.
    """
    if output.as_json:
        output.json(report)
        return
    texts = output.texts
    output.line(output.style(texts("serve.ready", issuer=report.issuer), "good"))
    rows = [
        (texts("serve.listens"), ", ".join(report.addresses)),
        (texts("serve.admin"), f"http://{report.admin}/metrics"),
        (texts("serve.data"), report.data),
    ]
    if report.earlier_issuers:
        said = texts(
            "serve.earlier_accepted", issuers=", ".join(report.earlier_issuers)
        )
        rows.append((texts("serve.earlier"), said))
    for key in report.keys:
        due = texts("serve.key_due", when=stamp(key.due)) if key.due else ""
        if not due:
            due = texts("keys.until.rotated")
        use = texts(f"serve.use.{key.use}")
        rows.append((use, f"{key.algorithm}  {key.kid}  {due}"))
    columns = max(width(name) for name, _ in rows)
    for name, value in rows:
        output.line(f"  {output.style(pad(name, columns), 'quiet')}  {value}")
    if report.problem:
        output.warn(texts("serve.not_ready", reason=report.problem))
    if report.unfit:
        output.line()
        output.line(output.style(texts("serve.unfit"), "warning"))
        for number, unfit in enumerate(report.unfit, start=1):
            name = f"serve.unfit.{unfit.code}"
            said = texts(name, **unfit.params) if texts.has(name) else unfit.text
            output.line(f"  • {said}")
            following = report.unfit[number : number + 1]
            if not following or following[0].command != unfit.command:
                hint = output.style(texts("output.hint"), "quiet")
                output.line(f"    {hint} {unfit.command}")
    if report.transcript:
        output.line()
        output.say("serve.try")
        for line in report.transcript:
            output.line(f"  {line}")
        output.line()
    output.say("serve.end")
