"""
``kagimori ring``: protection rings, the server's own and those of applications.
"""

from __future__ import annotations

from kagimori.cli.command import group
from kagimori.cli.ring_doctor import doctor
from kagimori.cli.ring_ending import compromise, delete, revoke
from kagimori.cli.ring_listing import init, list_
from kagimori.cli.ring_moving import copy, export, import_, rewrap
from kagimori.cli.ring_payloads import inspect, protect, unprotect
from kagimori.cli.ring_reprotect import reprotect
from kagimori.cli.ring_turning import activate, cancel, rotate

command = group("ring")

for each in (
    *(init, list_),
    *(rotate, activate, cancel),
    *(revoke, delete, compromise),
    *(rewrap, copy, export, import_),
    *(reprotect, doctor),
    *(protect, unprotect, inspect),
):
    command.add_command(each)
