"""
``kagimori ring protect``, ``unprotect``, ``inspect``: single payloads, by hand.

What is secret comes from standard input: arguments stand in the process list. A payload is not
secret by itself, but whoever has a cookie is signed in by it: ``-`` reads it from there too.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import click

from kagimori.cli.command import (
    EXIT_FAILURE,
    EXIT_NOT_FOUND,
    Command,
    option,
    session,
)
from kagimori.cli.output import Output
from kagimori.cli.ring_opening import named, opened, ring_options
from kagimori.cli.texts import Texts
from kagimori.cli.times import ago, lifetime, stamp
from kagimori.crypto.digests import b64url_encode
from kagimori.errors import ConfigError, ProtectionError, RefusedError
from kagimori.keys.protection.inspecting import (
    Inspection,
    Verdict,
    guess_application,
)
from kagimori.keys.protection.inspecting import inspect as inspected
from kagimori.keys.protection.protector import Protector
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.protection.unprotected import DangerousUnprotected

MOST_BYTES = 16 * 1024 * 1024

_SCHEMES = ("Cookies", "Identity.Application")
"""Schemes whose cookies a guess tries where no purpose was named."""

_GOOD = (Verdict.OPENS, Verdict.KEY_KNOWN)

purpose_option = option(
    "--purpose",
    "purposes",
    multiple=True,
    metavar="P",
    help="option.ring_purpose",
)


@click.command("protect", cls=Command, help="help.ring.protect")
@purpose_option
@option("--expires-in", metavar="SPAN", help="option.ring_expires_in")
@ring_options
@click.pass_context
def protect(
    context: click.Context,
    purposes: tuple[str, ...],
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    expires_in: str | None,
) -> None:
    """
    Protect what comes from standard input.
    """
    output = session(context).output
    span = lifetime(expires_in)
    _require_purposes(output, purposes)
    meant = named(context, ring, wrapper, application)
    with opened(context, meant, needs_application=True) as found:
        payload = _input()
        protector = found.ring.protector(*purposes)
        text = _protected(protector, payload, span)
        if output.as_json:
            output.json({"protected": text, "key": found.ring.current_key_id})
            return
        output.line(text)


def _protected(protector: Protector, payload: bytes, span: timedelta | None) -> str:
    if span is None:
        return protector.protect(payload)
    return protector.time_limited().protect(payload, expires_in=span)


@click.command("unprotect", cls=Command, help="help.ring.unprotect")
@click.argument("payload", default="-")
@purpose_option
@option("--time-limited", is_flag=True, help="option.ring_time_limited")
@option("--dangerously", is_flag=True, help="option.ring_dangerously")
@ring_options
@click.pass_context
def unprotect(
    context: click.Context,
    payload: str,
    purposes: tuple[str, ...],
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    time_limited: bool,
    dangerously: bool,
) -> None:
    """
    Print what a payload holds.
    """
    output = session(context).output
    _require_purposes(output, purposes)
    meant = named(context, ring, wrapper, application)
    with opened(context, meant, needs_application=True) as found:
        text = _text_of(payload)
        plain = found.ring.protector(*purposes)
        protector = plain.time_limited() if time_limited else plain
        try:
            told = (
                protector.unprotect_dangerously(text)
                if dangerously
                else protector.unprotect(text)
            )
        except ProtectionError as error:
            # Why is for the operator, who asks by `inspect`.
            error.hint = error.hint or output.texts("ring.unprotect.why")
            raise
    if isinstance(told, DangerousUnprotected) and told.was_revoked:
        output.warn(output.texts("ring.unprotect.revoked"))
    if output.as_json:
        output.json(
            {
                "payload": b64url_encode(told.payload),
                "key": told.key_id,
                "needs_renewal": told.needs_renewal,
            }
        )
        return
    sys.stdout.buffer.write(told.payload)
    sys.stdout.buffer.flush()


# --- inspecting ----------------------------------------------------------------------------


@click.command("inspect", cls=Command, help="help.ring.inspect")
@click.argument("payload")
@purpose_option
@option("--cookie", metavar="SCHEME", help="option.ring_cookie")
@option("--guess-application", "path", metavar="PATH", help="option.ring_guess")
@ring_options
@click.pass_context
def inspect(
    context: click.Context,
    payload: str,
    purposes: tuple[str, ...],
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    cookie: str | None,
    path: str | None,
) -> None:
    """
    Say what a payload is, and why it does not open; nothing of what is in it.
    """
    output = session(context).output
    if cookie is not None and purposes:
        raise click.UsageError(output.texts("ring.inspect.cookie_and_purpose"))
    wanted = _ticket_purposes(cookie) if cookie is not None else purposes
    meant = named(context, ring, wrapper, application)
    needs = bool(wanted) and path is None
    with opened(context, meant, needs_application=needs) as found:
        text = _text_of(payload)
        if path is not None:
            _guess(output, found.ring, text, path, wanted)
            return
        told = inspected(found.ring, text, purposes=wanted or None)
    if output.as_json:
        output.json(told)
    else:
        _show(output, told)
    if told.verdict not in _GOOD:
        sys.exit(EXIT_FAILURE)


def _show(output: Output, told: Inspection) -> None:
    texts = output.texts
    output.say("ring.inspect.verdict", verdict=_said(texts, told), text=told.text)
    rows: list[tuple[str, str]] = []
    if told.key_id is not None:
        rows.append(("ring.inspect.key", told.key_id))
    if told.is_known and told.state is not None:
        rows += [
            ("ring.inspect.algorithm", str(told.algorithm)),
            ("ring.inspect.state", told.state.value),
            ("ring.inspect.activates", stamp(told.activates)),
            ("ring.inspect.due", stamp(told.due)),
            ("ring.inspect.age", _age(texts, told)),
        ]
    if told.length:
        rows.append(("ring.inspect.length", str(told.length)))
    if told.is_time_limited:
        rows.append(("ring.inspect.expires", stamp(told.expires)))
    for key, value in rows:
        output.line(f"  {texts(key)}: {value}")
    if told.hint:
        output.line(f"  {texts('output.hint')} {told.hint}")


def _said(texts: Texts, told: Inspection) -> str:
    return texts(f"ring.verdict.{told.verdict.value.replace('-', '_')}")


def _age(texts: Texts, told: Inspection) -> str:
    most = ago(texts, told.age_at_most or timedelta())
    if told.age_at_least is None:
        return texts("ring.inspect.age_to", most=most)
    least = ago(texts, told.age_at_least)
    return texts("ring.inspect.age_between", least=least, most=most)


def _guess(
    output: Output,
    ring: ProtectionRing,
    text: str,
    path: str,
    purposes: tuple[str, ...],
) -> None:
    tried = [purposes] if purposes else [_ticket_purposes(each) for each in _SCHEMES]
    for each in tried:
        name = guess_application(ring, text, path, each)
        if name is None:
            continue
        if output.as_json:
            output.json({"application": name or None, "purposes": each})
            return
        if name:
            output.say("ring.guess.found", name=name)
        else:
            output.say("ring.guess.unnamed")
        return
    if output.as_json:
        output.json({"application": None, "purposes": None})
    else:
        output.say("ring.guess.none" if purposes else "ring.guess.no_cookie")
    sys.exit(EXIT_NOT_FOUND)


def _ticket_purposes(scheme: str) -> tuple[str, ...]:
    from kagimori.keys.protection.ticket_cookies import MIDDLEWARE

    # As ASP.NET Core's cookie authentication chains them.
    return (MIDDLEWARE, scheme, "v2")


# --- input ---------------------------------------------------------------------------------


def _require_purposes(output: Output, purposes: tuple[str, ...]) -> None:
    if not purposes:
        raise click.UsageError(output.texts("ring.purposes"))


def _input() -> bytes:
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise RefusedError(f"Standard input holds more than {MOST_BYTES} bytes.")
    return data


def _text_of(payload: str) -> str:
    text = payload if payload != "-" else _input().decode("ascii", "replace")
    if not text.strip():
        raise ConfigError("No payload was given.", hint="Name it, or pipe it in.")
    return text.strip()
