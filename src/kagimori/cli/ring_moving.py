"""
``kagimori ring rewrap``, ``copy``, ``export``, ``import``: keys under another envelope.

Passphrases come from a file or a variable, never from an argument, which everybody on the
machine can read.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from kagimori.cli.command import Command, confirm, option, session
from kagimori.cli.output import Output
from kagimori.cli.ring_opening import key_named, named, opened, ring_options
from kagimori.cli.ring_views import outcome_of
from kagimori.cli.times import stamp
from kagimori.errors import ConfigError, InsecureConfigError
from kagimori.events import NullSink
from kagimori.keys.protection.outcomes import Rewrapped
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.secret_sources import (
    from_environment,
    from_file,
    loose_secret_mode,
    read_file,
)

MOST_BYTES = 64 * 1024
"""The largest exported key that is read."""


@click.command("rewrap", cls=Command, help="help.ring.rewrap")
@ring_options
@option("--to", metavar="URL", help="option.ring_to")
@option("--recovery", metavar="URL", help="option.ring_recovery")
@option("--no-recovery", is_flag=True, help="option.ring_no_recovery")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def rewrap(
    context: click.Context,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    to: str | None,
    recovery: str | None,
    no_recovery: bool,
    yes: bool,
) -> None:
    """
    Wrap a ring's keys anew, and manage their second envelopes.
    """
    from kagimori.adapters import open_wrapper

    output = session(context).output
    if recovery is not None and no_recovery:
        raise click.UsageError(output.texts("ring.rewrap.both"))
    for address in (to, recovery):
        _check_argument(address)
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        held = found.ring
        _confirm_rewrap(context, held, to, yes=yes, single=no_recovery)
        done: Rewrapped | None = None
        if to is not None or (recovery is None and not no_recovery):
            done = held.rewrap(None if to is None else open_wrapper(to, NullSink()))
        second = removed = 0
        if recovery is not None:
            second = held.add_recovery(open_wrapper(recovery, NullSink()))
        if no_recovery:
            removed = held.remove_recovery()
        if output.as_json:
            output.json(
                {
                    "rewrapped": done,
                    "second_envelopes_written": second,
                    "second_envelopes_removed": removed,
                }
            )
            return
        if done is not None:
            _tell_of_rewrap(output, done)
        if recovery is not None:
            output.say("ring.rewrap.second", count=second)
        if no_recovery:
            output.say("ring.rewrap.no_second", count=removed)
        if to is not None:
            key = "ring.rewrap.settings" if found.work else "ring.rewrap.nodes"
            output.say(key, wrapper=to)


def _confirm_rewrap(
    context: click.Context,
    ring: ProtectionRing,
    to: str | None,
    *,
    yes: bool,
    single: bool,
) -> None:
    if to is not None:
        if to.startswith("plaintext:"):
            output = session(context).output
            output.warn(output.texts("ring.init.clear"))
        confirm(
            context,
            yes,
            "ring.rewrap.confirm",
            ring=ring.location_name,
            before=ring.wrapper_name,
            after=to.partition("?")[0],
        )
    if single:
        confirm(context, yes, "ring.rewrap.confirm_single", ring=ring.location_name)


def _tell_of_rewrap(output: Output, done: Rewrapped) -> None:
    output.say(
        "ring.rewrap.done",
        wrapper=done.wrapper,
        changed=len(done.changed),
        unchanged=len(done.unchanged),
    )
    for key_id, why in done.left.items():
        output.warn(output.texts("ring.rewrap.left", key=key_id, why=why))


@click.command("copy", cls=Command, help="help.ring.copy")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@option("--from-wrapper", metavar="URL", multiple=True, help="option.ring_from_wrapper")
@option("--wrapper", metavar="URL", help="option.ring_to_wrapper")
@option("--recovery", metavar="URL", help="option.ring_recovery")
@click.pass_context
def copy(
    context: click.Context,
    source: str,
    target: str,
    *,
    from_wrapper: tuple[str, ...],
    wrapper: str | None,
    recovery: str | None,
) -> None:
    """
    Copy a whole ring from one place to another, so that nobody is signed out.
    """
    from kagimori.adapters import open_store, open_wrapper
    from kagimori.keys.protection.copying import copy_ring
    from kagimori.opening import wrapper_from_environment

    output = session(context).output
    for address in (source, target, wrapper, recovery, *from_wrapper):
        _check_argument(address)
    chosen = wrapper or wrapper_from_environment()
    if chosen is None:
        raise ConfigError(
            "Nothing is named that wraps the keys where they go to.",
            hint="Give --wrapper URL; plaintext: leaves them readable to whoever reads them.",
        )
    sink = NullSink()
    wraps = open_wrapper(chosen, sink)
    # Where both sides are wrapped alike it is enough to say so once.
    unwrap_by = [open_wrapper(each, sink) for each in from_wrapper] or [wraps]
    done = copy_ring(
        open_store(source, read_only=True),
        open_store(target),
        unwrap_by=unwrap_by,
        wrapper=wraps,
        recovery=None if recovery is None else open_wrapper(recovery, sink),
        events=sink,
    )
    if output.as_json:
        output.json(
            {
                "keys": done.keys,
                "already": done.already,
                "revocations": done.revocations,
            }
        )
        return
    output.say(
        "ring.copy.done",
        keys=len(done.keys),
        revocations=done.revocations,
        already=len(done.already),
    )
    output.say("ring.copy.next")


# --- single keys ---------------------------------------------------------------------------


@click.command("export", cls=Command, help="help.ring.export")
@click.argument("key")
@ring_options
@option("--passphrase-file", metavar="PATH", help="option.ring_passphrase_file")
@option("--passphrase-env", metavar="NAME", help="option.ring_passphrase_env")
@option("--out", "target", metavar="PATH", help="option.ring_out")
@click.pass_context
def export(
    context: click.Context,
    key: str,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    passphrase_file: str | None,
    passphrase_env: str | None,
    target: str | None,
) -> None:
    """
    Write one key as text that only a passphrase opens.
    """
    output = session(context).output
    passphrase = _passphrase(output, passphrase_file, passphrase_env)
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        key_id = key_named(found.ring, key)
        text = found.ring.export_key(key_id, passphrase)
    if target is not None:
        _write(Path(target), text)
    if output.as_json:
        output.json({"key": key_id, "text": None if target else text})
        return
    if target is None:
        output.line(text.rstrip("\n"))
        return
    output.say("ring.export.done", key=key_id, path=target)


@click.command("import", cls=Command, help="help.ring.import")
@click.argument("source", metavar="FILE", default="-")
@ring_options
@option("--passphrase-file", metavar="PATH", help="option.ring_passphrase_file")
@option("--passphrase-env", metavar="NAME", help="option.ring_passphrase_env")
@option("--emergency", is_flag=True, help="option.ring_emergency_import")
@option("--reason", default="", help="option.ring_reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def import_(
    context: click.Context,
    source: str,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    passphrase_file: str | None,
    passphrase_env: str | None,
    emergency: bool,
    reason: str,
    yes: bool,
) -> None:
    """
    Add a key that ``ring export`` wrote.
    """
    output = session(context).output
    passphrase = _passphrase(output, passphrase_file, passphrase_env)
    text = _read(source)
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        if emergency:
            confirm(
                context, yes, "ring.confirm_emergency", ring=found.ring.location_name
            )
        key = found.ring.import_key(
            text, passphrase, emergency=emergency, reason=reason
        )
        if output.as_json:
            view = outcome_of(key)
            output.json({"key": view, "generation": found.ring.generation})
            return
        output.say(
            "ring.import.done",
            key=key.id,
            state=key.state.value,
            when=stamp(key.timeline.activates),
        )


def _passphrase(output: Output, path: str | None, name: str | None) -> str:
    if path is not None and name is None:
        loose = loose_secret_mode(Path(path))
        if loose is not None:
            output.warn(f"{loose}.")
        found = from_file(Path(path))
    elif name is not None and path is None:
        found = from_environment(name)
    else:
        raise click.UsageError(output.texts("ring.export.which"))
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("The passphrase is not UTF-8.") from None


def _check_argument(address: str | None) -> None:
    from kagimori.adapters import has_literal_secret

    if address is not None and has_literal_secret(address):
        raise InsecureConfigError(
            "A secret stands in an argument, where every user of this machine sees it.",
            hint="Name it instead: password-env=NAME or password-file=/path, and so on.",
        )


def _read(source: str) -> str:
    try:
        if source == "-":
            return sys.stdin.read(MOST_BYTES + 1)
        return read_file(Path(source), MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{source} holds no exported key.") from None


def _write(path: Path, text: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}.",
            hint="Name a file that is not there yet, in a folder of yours.",
        ) from None
