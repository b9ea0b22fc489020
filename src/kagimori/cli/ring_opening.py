"""
Opens the ring that a command works on: one that is named, or the server's own.

Rules of this module:

1. ``--ring`` names a ring. Without it a data folder does (``--data``, ``KAGIMORI_DATA``): then
   it is the server's own. Without either the environment does, as it does for applications;
   and where it names none, it is the ring of the data folder ``./kagimori-data``.
2. A server's ring is wrapped as its settings say, and by nothing else.
3. A command never makes a ring that it did not find; ``ring init`` alone does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kagimori.cli.command import option, session
from kagimori.errors import (
    ConfigError,
    InsecureConfigError,
    NotFoundError,
    RefusedError,
)
from kagimori.events import NullSink

if TYPE_CHECKING:
    from kagimori.cli.running import Work
    from kagimori.keys.protection.outcomes import ProtectionKeyView
    from kagimori.keys.protection.ring import ProtectionRing

F = TypeVar("F", bound=Callable[..., Any])

APPLICATION = "KAGIMORI_RING_APPLICATION"
SHORTEST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Named:
    """
    A ring as the command line and the environment name it.

    Attributes:
        location: where it lies; ``None`` for the server's own.
        wrapper: what wraps its keys; ``None`` where nothing says so.
        application: as it was written, ``none`` for no name; ``None`` where nothing says so.
    """

    # Variables may hold a signature or a password.
    location: str | None = field(repr=False)
    wrapper: str | None = field(repr=False)
    application: str | None

    @property
    def is_servers(self) -> bool:
        """
        Whether it is the ring that an installation of the server names.
        """
        return self.location is None

    def discriminator(self, *, needed: bool) -> str | None:
        """
        Return the application's name, ``None`` for none.

        Raises:
            ConfigError: it is needed, and named nowhere.
        """
        if self.application is None and needed:
            raise ConfigError(
                "No application is named.",
                hint=f"Give --application NAME, or set {APPLICATION}; none means no name.",
            )
        return None if self.application in (None, "none") else self.application


@dataclass(frozen=True, slots=True)
class Opened:
    """
    An open ring, and the installation that it belongs to, where it is a server's.
    """

    ring: ProtectionRing
    work: Work | None = None


def ring_options(command: F) -> F:
    """
    Let a command name a ring.
    """
    for add in (
        option("--application", metavar="NAME", help="option.ring_application"),
        option("--wrapper", metavar="URL", help="option.ring_wrapper"),
        option("--ring", metavar="URL", help="option.ring_location"),
    ):
        command = add(command)
    return command


def named(
    context: click.Context,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
) -> Named:
    """
    Return which ring is meant (rule 1).

    Raises:
        click.UsageError: options contradict each other.
        InsecureConfigError: an option holds a secret, which the process list would show.
    """
    from kagimori.adapters import has_literal_secret
    from kagimori.opening import location_from_environment, wrapper_from_environment

    current = session(context)
    for text in (ring, wrapper):
        if text is not None and has_literal_secret(text):
            raise InsecureConfigError(
                "A secret stands in an argument, where every user of this machine sees it.",
                hint="Name it instead: password-env=NAME or password-file=/path, and so on.",
            )
    if ring is not None and current.data is not None:
        raise click.UsageError(current.texts("ring.two_rings"))
    location = ring
    if (
        location is None
        and current.data is None
        and not os.environ.get("KAGIMORI_DATA")
    ):
        location = location_from_environment()
    if location is None:
        if wrapper is not None or application is not None:
            raise click.UsageError(current.texts("ring.servers_own"))
        return Named(None, None, None)
    return Named(
        location,
        wrapper or wrapper_from_environment(),
        application or os.environ.get(APPLICATION) or None,
    )


@contextlib.contextmanager
def opened(
    context: click.Context, ring: Named, *, needs_application: bool = False
) -> Iterator[Opened]:
    """
    Open a ring, and close it after.

    Raises:
        KagimoriError: there is none, or it cannot be opened.
    """
    output = session(context).output
    if ring.is_servers:
        from kagimori.cli.running import installed

        with installed(context) as work:
            servers = work.installation.ring
            _tell_of_problem(output, servers)
            yield Opened(servers, work)
        return
    from kagimori.opening import open_ring

    found = open_ring(
        ring.location,
        application=ring.discriminator(needed=needs_application),
        wrapper=ring.wrapper,
        create=False,
        events=NullSink(),
    )
    try:
        _tell_of_problem(output, found)
        yield Opened(found)
    finally:
        found.close()


def _tell_of_problem(output: Any, ring: ProtectionRing) -> None:
    problem = ring.problem
    if problem is not None:
        text, hint = output.texts.error(problem)
        output.warn(f"{text} {hint}".strip())


def key_named(ring: ProtectionRing, text: str) -> str:
    """
    Return the id of the key that somebody named, in full or by its first characters.

    Raises:
        NotFoundError: no key begins so.
        RefusedError: several do.
    """
    wanted = text.strip().lower()
    ids = [view.id for view in views_of(ring)]
    if wanted in ids:
        return wanted
    found = [each for each in ids if each.startswith(wanted)]
    if len(wanted) < SHORTEST_PREFIX or not found:
        # A key whose element cannot be read has an id too; the ring itself judges that.
        if len(wanted) == 36:
            return wanted
        raise NotFoundError(
            f"The ring holds no key {text}.",
            hint="`kagimori ring list` shows the keys; four characters of an id are enough.",
            key=text,
        )
    if len(found) > 1:
        raise RefusedError(
            f"{len(found)} keys of the ring begin with {wanted}.",
            hint="Name more of the id.",
        )
    return found[0]


def views_of(ring: ProtectionRing) -> tuple[ProtectionKeyView, ...]:
    """
    Return what may be shown of all keys, by activation.
    """
    return ring.keys()
