"""
The composition root: turns settings into an installation that can be worked on.

It alone knows the adapters. The server and every command stand on the same `Installation`.
"""

from kagimori.compose.installation import Installation
from kagimori.compose.issuers import Issuers
from kagimori.compose.opening import (
    is_transient,
    make_installation,
    open_installation,
    opened,
)
from kagimori.compose.services import Services

__all__ = [
    "Installation",
    "Issuers",
    "Services",
    "is_transient",
    "make_installation",
    "open_installation",
    "opened",
]
