"""
Kagimori, keeper of the keys: key rings that turn without anybody noticing.

The public names of the library. They are loaded when they are first used, so that
``import kagimori`` costs next to nothing and pulls in neither a server nor a web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kagimori.crypto.jwk import Jwk as Jwk
    from kagimori.crypto.jwk import JwkSet as JwkSet
    from kagimori.errors import KagimoriError as KagimoriError
    from kagimori.errors import ProtectionError as ProtectionError
    from kagimori.keys.protection.protector import Protector as Protector
    from kagimori.keys.protection.protector import (
        TimeLimitedProtector as TimeLimitedProtector,
    )
    from kagimori.keys.protection.ring import ProtectionRing as ProtectionRing
    from kagimori.keys.protection.ticket_cookies import TicketCookies as TicketCookies
    from kagimori.keys.protection.ticket_values import Claim as Claim
    from kagimori.keys.protection.ticket_values import Identity as Identity
    from kagimori.keys.protection.ticket_values import Ticket as Ticket
    from kagimori.keys.protection.ticket_values import (
        TicketProperties as TicketProperties,
    )
    from kagimori.keys.protection.unprotected import (
        DangerousUnprotected as DangerousUnprotected,
    )
    from kagimori.keys.protection.unprotected import Unprotected as Unprotected
    from kagimori.opening import open_ring as open_ring
    from kagimori.tokens.verifier import TokenVerifier as TokenVerifier

__version__ = "0.1.0"

_HOMES = {
    "Claim": "kagimori.keys.protection.ticket_values",
    "DangerousUnprotected": "kagimori.keys.protection.unprotected",
    "Identity": "kagimori.keys.protection.ticket_values",
    "Jwk": "kagimori.crypto.jwk",
    "JwkSet": "kagimori.crypto.jwk",
    "KagimoriError": "kagimori.errors",
    "ProtectionError": "kagimori.errors",
    "ProtectionRing": "kagimori.keys.protection.ring",
    "Protector": "kagimori.keys.protection.protector",
    "Ticket": "kagimori.keys.protection.ticket_values",
    "TicketCookies": "kagimori.keys.protection.ticket_cookies",
    "TicketProperties": "kagimori.keys.protection.ticket_values",
    "TimeLimitedProtector": "kagimori.keys.protection.protector",
    "TokenVerifier": "kagimori.tokens.verifier",
    "Unprotected": "kagimori.keys.protection.unprotected",
    "open_ring": "kagimori.opening",
}

__all__ = [
    "Claim",
    "DangerousUnprotected",
    "Identity",
    "Jwk",
    "JwkSet",
    "KagimoriError",
    "ProtectionError",
    "ProtectionRing",
    "Protector",
    "Ticket",
    "TicketCookies",
    "TicketProperties",
    "TimeLimitedProtector",
    "TokenVerifier",
    "Unprotected",
    "__version__",
    "open_ring",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kagimori' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
