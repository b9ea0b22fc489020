"""
``manage.py kagimori_ring``: show the ring that the settings name, and rotate it.
"""

from __future__ import annotations

from django.core.management.base import BaseCommand, CommandError, CommandParser

from kagimori.errors import KagimoriError
from kagimori.integrations.django.ring import ring
from kagimori.keys.timeline import KeyTimeline


class Command(BaseCommand):
    """
    Show the keys of the ring, or add one.
    """

    help = "Show the key ring that the settings name, or rotate it."

    def add_arguments(self, parser: CommandParser) -> None:
        """
        Declare the two verbs.
        """
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("show", help="list the keys, by activation")
        rotate = verbs.add_parser("rotate", help="add a key")
        rotate.add_argument("--reason", default="", help="kept in the ring")
        rotate.add_argument(
            "--now",
            action="store_true",
            help="let it protect at once; .NET nodes of the ring may not know it for a day",
        )

    def handle(self, **options: object) -> None:
        """
        Do what was asked.

        Raises:
            CommandError: the ring refuses, or cannot be read.
        """
        try:
            if options["verb"] == "rotate":
                added = ring().rotate(
                    immediate=bool(options["now"]), reason=str(options["reason"])
                )
                self.stdout.write(
                    f"Key {added.id} protects from {_time(added.timeline)} on."
                )
            self._show()
        except KagimoriError as error:
            raise CommandError(str(error)) from error

    def _show(self) -> None:
        found = ring()
        self.stdout.write(
            f"Ring {found.location_name}, application {found.application or 'none'}, "
            f"wrapped by {found.wrapper_name}"
        )
        views = found.keys()
        for key in views:
            self.stdout.write(
                f"{key.id}  {key.state.value:<8}  {key.algorithm}  from {_time(key.timeline)}"
            )
        if found.problem is not None:
            self.stderr.write(f"Problem: {found.problem}")


def _time(timeline: KeyTimeline) -> str:
    return timeline.activates.isoformat(timespec="seconds")
