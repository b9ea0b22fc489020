"""
``kagimori ring doctor``: what a process may do with a ring, and what slots read of each other.

Rules of this module:

1. Each right is tried by itself, and one that is missing hides no other.
2. Nothing is changed, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from kagimori.cli.command import EXIT_FAILURE, Command, option, session
from kagimori.cli.output import Output
from kagimori.cli.ring_opening import Named, named, ring_options, views_of
from kagimori.cli.times import stamp
from kagimori.errors import (
    KagimoriError,
    KeyWrapError,
    RingMissingError,
    RingUnreadableError,
    StoreError,
)
from kagimori.events import NullSink
from kagimori.keys.timeline import KeyState

if TYPE_CHECKING:
    from kagimori.cli.ring_peer import Comparison, Crossing
    from kagimori.keys.findings import Finding
    from kagimori.keys.protection.ring import ProtectionRing
    from kagimori.keys.store import KeyStore
    from kagimori.settings import Settings


# What is found so works for now, and is still to be looked after.
_WORRIES = frozenset(
    {"anonymous read", "lasting", "eviction", "expiry", "key stays in the token"}
)

# A ring that cannot be read in part will fail when that part's turn comes.
_FAULTS = (RingUnreadableError, RingMissingError, KeyWrapError, StoreError)

MARKS = {"good": "✓", "warning": "!", "bad": "✗"}
STYLES = {"good": "good", "warning": "warning", "bad": "error"}


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """
    One line of what the doctor found.
    """

    part: str
    right: str
    verdict: str
    text: str
    remedy: str = ""


@click.command("doctor", cls=Command, help="help.ring.doctor")
@option("--peer", "peers", multiple=True, metavar="URL", help="option.ring_peer")
@ring_options
@click.pass_context
def doctor(
    context: click.Context,
    peers: tuple[str, ...],
    ring: str | None,
    wrapper: str | None,
    application: str | None,
) -> None:
    """
    Try each right separately; with ``--peer`` let slots read each other's payloads.
    """
    output = session(context).output
    if len(peers) > 2:
        raise click.UsageError(output.texts("ring.peer.two"))
    if len(peers) == 2:
        # Both slots are asked; no ring of this machine takes part.
        _report_peers(output, *_compared(output, peers, None))
        return
    meant, settings = _meant(context, named(context, ring, wrapper, application))
    found = list(_examined(output, meant, settings, needs_name=bool(peers)))
    compared: Comparison | None = None
    if peers and all(each.verdict != "bad" for each in found):
        with contextlib.closing(_opened(meant)) as held:
            unanswered, compared = _compared(output, peers, held)
            found += unanswered
    _report_peers(output, found, compared)


def _meant(context: click.Context, ring: Named) -> tuple[Named, Settings | None]:
    """
    Return the ring with its names filled in, for a server's own from its settings.
    """
    if not ring.is_servers:
        return ring, None
    from kagimori.settings import data_folder, read_settings

    settings = read_settings(data_folder(session(context).data))
    named_there = Named(settings.ring_url, settings.wrapper_url, settings.application)
    return named_there, settings


# --- rights --------------------------------------------------------------------------------


def _examined(
    output: Output, ring: Named, settings: Settings | None, *, needs_name: bool
) -> Iterator[Shown]:
    from kagimori.adapters import open_store, open_wrapper

    location = str(ring.location)
    try:
        store = open_store(location)
        yield from map(_of_right("store"), _rights(store, _reads(store)))
    except KagimoriError as error:
        yield _of_error(output, "store", "open", error)
        return
    if ring.wrapper is None:
        text = output.texts("ring.doctor.no_wrapper")
        hint = output.texts("ring.doctor.no_wrapper_hint")
        yield Shown(
            part="wrapper", right="wrap", verdict="warning", text=text, remedy=hint
        )
    else:
        try:
            wraps = open_wrapper(ring.wrapper, NullSink())
            yield from map(_of_right("wrapper"), _rights(wraps, _wraps(wraps)))
            yield from _secret_files(output, ring.wrapper)
        except KagimoriError as error:
            yield _of_error(output, "wrapper", "open", error)
    yield from _ring(output, ring, store, needs_name=needs_name)


def _rights(adapter: object, otherwise: Callable[[], list[Finding]]) -> list[Finding]:
    examine = getattr(adapter, "examine", None)
    if examine is None:
        return otherwise()
    return list(examine())


def _of_right(part: str) -> Callable[[Finding], Shown]:
    def shown(found: Finding) -> Shown:
        return Shown(
            part=part,
            right=found.right,
            verdict=_verdict(found),
            text=found.text,
            remedy=found.remedy,
        )

    return shown


def _verdict(found: Finding) -> str:
    if found.ok:
        return "good"
    return "warning" if found.right in _WORRIES else "bad"


def _of_error(output: Output, part: str, right: str, error: KagimoriError) -> Shown:
    text, hint = output.texts.error(error)
    return Shown(part=part, right=right, verdict="bad", text=text, remedy=hint)


def _reads(store: object) -> Callable[[], list[Finding]]:
    from kagimori.keys.findings import Finding

    def tried() -> list[Finding]:
        load = getattr(store, "load")  # noqa: B009 - a `KeyStore` without `examine`
        return [
            Finding("read", ok=True, text=f"{len(load().elements)} elements were read.")
        ]

    return tried


def _wraps(wrapper: object) -> Callable[[], list[Finding]]:
    """
    Try a wrapper that cannot examine itself: its key lies on this machine.
    """
    import uuid

    from kagimori.crypto.digests import b64url_encode, random_bytes
    from kagimori.keys.findings import Finding
    from kagimori.keys.protection.envelopes import wrap_checked

    def tried() -> list[Finding]:
        value = b64url_encode(random_bytes(32))
        secret = f"<masterKey><value>{value}</value></masterKey>"
        name = getattr(wrapper, "name", "")
        try:
            wrap_checked(wrapper, secret, str(uuid.uuid4()))  # type: ignore[arg-type]
        except KagimoriError as error:
            return [Finding("wrap", ok=False, text=error.text, remedy=error.hint)]
        return [
            Finding("wrap", ok=True, text=f"{name} wraps."),
            Finding("unwrap", ok=True, text=f"{name} unwraps to the same."),
        ]

    return tried


def _secret_files(output: Output, wrapper: str) -> Iterator[Shown]:
    from kagimori.adapters import secret_files
    from kagimori.secret_sources import loose_secret_mode

    for path in secret_files(wrapper):
        loose = loose_secret_mode(path)
        if loose is not None:
            yield Shown(
                part="wrapper",
                right="files",
                verdict="bad",
                text=f"{loose}.",
                remedy=output.texts("ring.doctor.chmod"),
            )


# --- the ring itself -----------------------------------------------------------------------


def _opened(ring: Named, *, needs_name: bool = True) -> ProtectionRing:
    from kagimori.opening import open_ring

    return open_ring(
        ring.location,
        application=ring.discriminator(needed=needs_name),
        wrapper=ring.wrapper,
        create=False,
        read_only=True,
        events=NullSink(),
    )


def _ring(
    output: Output, ring: Named, store: KeyStore, *, needs_name: bool
) -> Iterator[Shown]:
    texts = output.texts
    try:
        held = _opened(ring, needs_name=needs_name)
    except RingMissingError as error:
        hint = texts("ring.doctor.missing_hint")
        yield Shown(
            part="ring", right="open", verdict="bad", text=error.text, remedy=hint
        )
        return
    except KagimoriError as error:
        yield _of_error(output, "ring", "open", error)
        return
    try:
        yield from _opening(output, held)
        yield _clock(output, held)
        yield from _versions(output, held)
        if held.is_clear:
            text = texts("ring.doctor.clear")
            remedy = texts("ring.doctor.clear_hint")
            loose: tuple[str, ...] = getattr(store, "loose_modes", tuple)()
            if loose:
                text = f"{text} {'; '.join(loose)}."
            yield Shown(
                part="ring", right="files", verdict="warning", text=text, remedy=remedy
            )
    finally:
        held.close()


def _opening(output: Output, held: ProtectionRing) -> Iterator[Shown]:
    problem = held.problem
    if problem is not None:
        found = _of_error(output, "ring", "open", problem)
        serves = held.is_ready and not isinstance(problem, _FAULTS)
        verdict = "warning" if serves else "bad"
        yield msgspec.structs.replace(found, right="keys", verdict=verdict)
    if not held.is_ready:
        return
    probe = held.protector("kagimori", "doctor")
    sound = probe.unprotect(probe.protect(b"probe")).payload == b"probe"
    key = "ring.doctor.opens" if sound else "ring.doctor.broken"
    text = output.texts(key, ring=held.location_name, key=held.current_key_id)
    yield Shown(
        part="ring", right="open", verdict="good" if sound else "bad", text=text
    )


def _clock(output: Output, held: ProtectionRing) -> Shown:
    now = held.now()
    newest = max(view.timeline.created for view in views_of(held))
    behind = newest > now
    key = "ring.doctor.clock_behind" if behind else "ring.doctor.clock_good"
    text = output.texts(key, now=stamp(now), newest=stamp(newest))
    remedy = output.texts("ring.doctor.clock_hint") if behind else ""
    verdict = "bad" if behind else "good"
    return Shown(part="ring", right="clock", verdict=verdict, text=text, remedy=remedy)


def _versions(output: Output, held: ProtectionRing) -> Iterator[Shown]:
    texts = output.texts
    guarded = [each for each in held.inventory() if each.state is not KeyState.REVOKED]
    older = [each for each in guarded if each.is_newest is False]
    if older:
        text = texts("ring.doctor.older", count=len(older))
        remedy = texts("ring.doctor.older_hint")
        yield Shown(
            part="wrapper", right="keys", verdict="warning", text=text, remedy=remedy
        )
    single = [each for each in guarded if not each.recovery_by]
    if single and len(single) < len(guarded):
        # Somebody provides for the day of disaster, and a newer key would be lost on it.
        text = texts("ring.doctor.single", count=len(single))
        remedy = texts("ring.doctor.single_hint")
        yield Shown(
            part="wrapper", right="keys", verdict="warning", text=text, remedy=remedy
        )


# --- slots ---------------------------------------------------------------------------------


def _compared(
    output: Output, peers: Sequence[str], held: ProtectionRing | None
) -> tuple[list[Shown], Comparison | None]:
    """
    Compare two slots; one that does not answer is a finding.
    """
    from kagimori.cli.ring_peer import LocalSlot, RemoteSlot, Slot, compare

    last = RemoteSlot(peers[-1])
    first: Slot = (
        RemoteSlot(peers[0])
        if held is None
        else LocalSlot(held, output.texts("ring.peer.here"))
    )
    try:
        return [], compare(first, last)
    except StoreError as error:
        return [_of_error(output, "peer", "ask", error)], None


def _report_peers(
    output: Output, found: Sequence[Shown], compared: Comparison | None
) -> None:
    if output.as_json:
        output.json({"findings": found, "peers": compared})
    for each in found:
        _line(output, each.verdict, _heading(output, each), each.text, each.remedy)
    if compared is not None:
        for crossing in compared.crossings:
            _crossing(output, crossing)
        for note in compared.notes:
            text = output.texts(
                f"ring.peer.note.{note.value}", skew=f"{compared.skew:+.1f}"
            )
            _line(output, "warning", output.texts("ring.peer.heading"), text, "")
    bad = any(each.verdict == "bad" for each in found)
    if bad or (compared is not None and not compared.is_good):
        sys.exit(EXIT_FAILURE)


def _heading(output: Output, found: Shown) -> str:
    part = output.texts(f"ring.part.{found.part}")
    key = f"ring.right.{found.right.replace(' ', '_')}"
    right = output.texts(key) if output.texts.has(key) else found.right
    return f"{part}, {right}"


def _crossing(output: Output, crossing: Crossing) -> None:
    texts = output.texts
    names = {"reader": crossing.reader, "writer": crossing.writer}
    heading = texts("ring.peer.heading")
    if crossing.reads:
        _line(output, "good", heading, texts("ring.peer.reads", **names), "")
        return
    _line(output, "bad", heading, texts("ring.peer.does_not", **names), "")
    for difference in crossing.differences:
        output.line(
            f"  {texts('output.hint')} {texts(f'ring.peer.{difference.value}', **names)}"
        )


def _line(output: Output, verdict: str, heading: str, text: str, remedy: str) -> None:
    mark = output.style(MARKS[verdict], STYLES[verdict])
    output.line(f"{mark} {heading}: {text}")
    if remedy:
        output.line(f"  {output.texts('output.hint')} {remedy}")
