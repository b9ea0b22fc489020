"""
Small servers for tests: a store, a protection ring in a folder, and processes upon them.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from kagimori.admin.audit import Trail
from kagimori.admin.keys import KeyAdmin
from kagimori.admin.tenants import TenantAdmin
from kagimori.crypto import jws
from kagimori.keys.birth import NewRings
from kagimori.keys.journal import Cause
from kagimori.keys.tenant_rings import TenantRings
from kagimori.keys.timeline import KeyUse
from kagimori.opening import open_ring
from kagimori.storage.sqlite import SqliteStore
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore

CAUSE = Cause("cli:tester", "because", "req-1")
TENANT = "default"
SIGNING = KeyUse.SIGNING
COOKIE = KeyUse.COOKIE
FAST = NewRings(algorithms=("ES256",))
"""Without RSA, whose generation takes a while."""


class Listener:
    """
    Remembers the events that it was told.
    """

    def __init__(self):
        """
        Begin with none.
        """
        self.events = []

    def emit(self, event):
        """
        Take one event.
        """
        self.events.append(event)

    def names(self):
        """
        Return the names of all events, in order.
        """
        return [event.name for event in self.events]


class World:
    """
    One store and one protection ring, and any number of processes that share them.

    Args:
        folder: where the protection ring lies.
        sqlite: use a database in the folder instead of memory.
        plan: what new rings begin with.
    """

    def __init__(self, folder, *, sqlite=False, plan=FAST):
        """
        Open the ring and the store.
        """
        self.folder = folder
        self.clock = FixedClock()
        self.plan = plan
        self.trail = Trail()
        self.ring = self.open_ring()
        self.store = (
            SqliteStore.open(folder / "test.db", clock=self.clock)
            if sqlite
            else MemoryStore(self.clock)
        )
        self.keys = KeyAdmin(
            self.store, self.ring, self.clock, self.trail, wait=self.wait
        )
        self.tenants = TenantAdmin(
            self.store, self.ring, self.clock, self.trail, plan=plan
        )

    def open_ring(self, name="ring"):
        """
        Open a protection ring in the folder.
        """
        return open_ring(
            f"file://{self.folder}/{name}",
            application="kagimori",
            wrapper="plaintext:",
            clock=self.clock,
        )

    async def wait(self, instant):
        """
        Wait as a test does: the clock moves.
        """
        self.clock.set(max(instant, self.clock.now()))

    @property
    def now(self):
        """
        Return the present instant.
        """
        return self.clock.now()

    async def server(self, *tenants, ring=None, clock=None, store=None, events=None):
        """
        Start a process; with `tenants` it makes the rings that they lack.
        """
        rings = TenantRings(
            store or self.store,
            ring or self.ring,
            clock or self.clock,
            events,
            journal=self.trail,
            plan=self.plan,
        )
        await rings.start(tenants or (TENANT,))
        return rings

    async def run(self, rings, span, step=timedelta(seconds=1)):
        """
        Let time pass for a process, with a look and a tick at each step.
        """
        end = self.now + span
        while self.now < end:
            self.clock.advance(min(step, end - self.now))
            await rings.refresh()
            await rings.tick(self.now)
            await rings.flush_ledger()

    async def sign(self, rings, *, life=600, algorithm=None, tenant=TENANT):
        """
        Sign a token that lives for `life` seconds; return its text.
        """
        now = self.now
        until = now + timedelta(seconds=life)
        key = await rings.signing_key(tenant, algorithm, now, until)
        return key.jws_signer("at+jwt").sign(b"a token")

    def verify(self, rings, token, tenant=TENANT):
        """
        Verify a token with the published keys of a process.
        """
        keys = rings.verification_keys(tenant, self.now)
        return jws.verify(token, keys, algorithms=("ES256", "RS256", "PS256"))

    async def kids(self, state, use="signing", tenant=TENANT):
        """
        Return the kids of a tenant's keys in a state, as the operator sees them.
        """
        return [
            view.kid
            for view in await self.keys.list(tenant)
            if (view.use, view.state) == (use, state)
        ]


def kid_of(token):
    """
    Return the kid in a token's header.
    """
    return jws.peek_header(token)["kid"]


def run(coroutine):
    """
    Run one asynchronous story.
    """
    return asyncio.run(coroutine)
