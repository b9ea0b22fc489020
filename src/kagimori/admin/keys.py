"""
The operator's verbs for keys: list, rotate, cancel, delete, revoke.

Rules of this module:

1. Keys are made before the commit; whether the verb applies is decided inside, by the store's
   time, and again for each attempt.
2. Each verb leaves its audit record in the same commit, and answers with the generation.
3. An immediate switch is dated one second ahead, so that all servers make it together, and
   the verb returns after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from kagimori.admin.audit import Trail
from kagimori.admin.key_views import KeyOutcome, KeyView, view_of, views_of
from kagimori.clock import Clock
from kagimori.crypto.algorithms import algorithm as known_algorithm
from kagimori.errors import ContentionError, KeyStateError, RefusedError
from kagimori.keys import refusals
from kagimori.keys.changing import (
    Step,
    StoredRing,
    change_ring,
    no_ring,
    records_of,
)
from kagimori.keys.documents import LEDGERS, RINGS, KeyDocument
from kagimori.keys.journal import Cause
from kagimori.keys.ledger import live_tokens
from kagimori.keys.lineup import RingKey
from kagimori.keys.material import ProtectorRoot, make_key, rsa_bits
from kagimori.keys.policy import SWITCH_AHEAD, RotationPolicy
from kagimori.keys.ring import LiveTokens, RingChange
from kagimori.keys.schedule import propagated_at
from kagimori.keys.timeline import KeyState, KeyTimeline, KeyUse
from kagimori.keys.upkeep import tidied
from kagimori.oauth.resource import RESOURCES
from kagimori.storage.store import Store

USES = (KeyUse.SIGNING, KeyUse.COOKIE)

KEPT_ALGORITHM = "RS256"
"""Stays current beside any default: every OpenID Connect client verifies it (OID-9)."""
