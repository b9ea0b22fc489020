"""
Limits on failed sign-ins of clients and users (TOK-16).

Rules of this module:

1. Only failures count, and attempts whose outcome is still open; what succeeds leaves no trace.
2. Windows slide exactly: the n-th last failure decides, so there is no edge to burst over.
3. Names and addresses come from the network: their number and length are bounded, and the least
   recently failing ones are forgotten first.
4. Where nothing has failed lately a question costs next to nothing.

The `limits` package was judged for this: its memory storage reads the machine's clock itself,
grows with the number of names, and cannot take an attempt back.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict, deque
from datetime import datetime
from typing import Final

import msgspec

from kagimori.crypto.digests import sha256
from kagimori.identity.credentials import Subject

MINUTE = 60.0
HOUR = 3600.0
CAPACITY = 20_000
"""How many names and addresses are kept track of."""


class ThrottleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """
    How many failures there may be (settings).

    Attributes:
        subject_per_minute: of one client or account from one address.
        address_per_minute: from one address, whoever is named.
        account_per_hour: of one account, wherever from.
    """

    subject_per_minute: int = 10
    address_per_minute: int = 100
    account_per_hour: int = 300


class Throttle:
    """
    Counts failures in the memory of this process.

    Args:
        limits: how many there may be.
        capacity: how many names and addresses are kept track of.
    """

    def __init__(
        self, limits: ThrottleLimits | None = None, *, capacity: int = CAPACITY
    ) -> None:
        limits = limits or ThrottleLimits()
        self._subjects = _Window(limits.subject_per_minute, MINUTE, capacity)
        self._addresses = _Window(limits.address_per_minute, MINUTE, capacity)
        self._accounts = _Window(limits.account_per_hour, HOUR, capacity)

    def wait(self, subject: Subject, address: str, now: datetime) -> int:
        """
        Return for how many seconds no attempt may be made; 0 when one may be made now.
        """
        if self._addresses.is_idle and self._accounts.is_idle:
            return 0
        stamp = now.timestamp()
        name = _name(subject)
        place = _place(address)
        wait = self._addresses.wait(place, stamp)
        if wait or self._addresses.knows(place):
            wait = max(wait, self._subjects.wait(f"{name}\0{place}", stamp))
        if subject.kind == "account":
            wait = max(wait, self._accounts.wait(name, stamp))
        return math.ceil(wait)

    def begin(self, subject: Subject, address: str) -> None:
        """
        Count an attempt whose outcome is not known yet.
        """
        for window, key in self._keys(subject, address):
            window.begin(key)

    def end(self, subject: Subject, address: str) -> None:
        """
        Take back what `begin` counted.
        """
        for window, key in self._keys(subject, address):
            window.end(key)

    def failed(self, subject: Subject, address: str, now: datetime) -> None:
        """
        Count a failure.
        """
        stamp = now.timestamp()
        for window, key in self._keys(subject, address):
            window.add(key, stamp)

    def suspicious(self, address: str, now: datetime) -> None:
        """
        Count against an address alone: a forged token, say (requirements B5, case 1).
        """
        self._addresses.add(_place(address), now.timestamp())

    def _keys(self, subject: Subject, address: str) -> list[tuple[_Window, str]]:
        name = _name(subject)
        place = _place(address)
        keys = [(self._subjects, f"{name}\0{place}"), (self._addresses, place)]
        if subject.kind == "account":
            keys.append((self._accounts, name))
        return keys


AHEAD: Final = 5.0
"""Seconds; how far ahead of now a failure may lie: the clocks of two reads (DESIGN section 9)."""


class _Window:
    """
    The last `limit` failures of each key within `length` seconds.
    """

    def __init__(self, limit: int, length: float, capacity: int) -> None:
        self._limit = limit
        self._length = length
        self._capacity = capacity
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._open: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        """
        Whether nothing has failed and nothing is open.
        """
        return not self._failures and not self._open

    def knows(self, key: str) -> bool:
        """
        Whether a key has failed or has an open attempt.
        """
        return key in self._failures or key in self._open

    def wait(self, key: str, stamp: float) -> float:
        """
        Return for how many seconds the key must wait.
        """
        self._forget_one(stamp)
        failures = self._failures.get(key)
        if failures is not None:
            # What a clock that was ahead wrote would lock out for as long as it was ahead.
            while failures and failures[-1] > stamp + AHEAD:
                failures.pop()
            while failures and failures[0] <= stamp - self._length:
                failures.popleft()
            if not failures:
                del self._failures[key]
                failures = None
        room = self._limit - self._open.get(key, 0)
        count = len(failures) if failures is not None else 0
        if count < room:
            return 0.0
        if room <= 0 or failures is None:
            # Open attempts alone fill it: they end soon.
            return 1.0
        # A clock that stepped back must not lock anybody out for longer than the window.
        return min(self._length, max(1.0, failures[-room] + self._length - stamp))

    def _forget_one(self, stamp: float) -> None:
        # The least recently failing key goes first; one a question keeps up with any flood
        # and brings the window back to rest.
        if self._failures:
            key = next(iter(self._failures))
            last = self._failures[key][-1]
            if last <= stamp - self._length or last > stamp + AHEAD:
                del self._failures[key]

    def begin(self, key: str) -> None:
        """
        Count an open attempt.
        """
        self._open[key] += 1

    def end(self, key: str) -> None:
        """
        Take an open attempt back.
        """
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]

    def add(self, key: str, stamp: float) -> None:
        """
        Count a failure.
        """
        failures = self._failures.get(key)
        if failures is None:
            failures = self._failures[key] = deque(maxlen=max(1, self._limit))
            if len(self._failures) > self._capacity:
                self._failures.popitem(last=False)
        else:
            self._failures.move_to_end(key)
        failures.append(stamp)


def _name(subject: Subject) -> str:
    name = subject.id
    if len(name) > 64:
        name = sha256(name.encode("utf-8", "replace")).hex()
    return f"{subject.kind}\0{subject.tenant}\0{name}"


def _place(address: str) -> str:
    # Whoever has one IPv6 address has a /64 of them.
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address[:64]
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.exploded[:19]
