"""
Figures of protection rings: against .NET, and as they grow.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kagimori
from bench.figure import PAIRS, Better, Figure, in_turns
from bench.library import dp_peer
from bench.timing import microseconds
from kagimori.errors import UnknownKeyIdError
from kagimori.keys.protection import frame, minting
from kagimori.keys.protection.algorithms import ALGORITHMS as PROTECTION_ALGORITHMS
from kagimori.keys.protection.plan import Birth
from kagimori.keys.store import Element
from kagimori.ring_stores.file import FolderStore
from kagimori.wrappers.plaintext import PlaintextWrapper

ALGORITHMS = {"gcm": "AES_256_GCM", "cbc": "AES_256_CBC_HMACSHA256"}
"""As we call them; .NET takes cipher and hash apart."""

SIZES = {"200": 200, "4k": 4096}
MANY_KEYS = 1000
WRAPPED_KEYS = 100


def _ring(folder: Path, algorithm: str = "AES_256_GCM") -> kagimori.ProtectionRing:
    return kagimori.open_ring(
        f"file://{folder}/ring",
        application="bench",
        wrapper="plaintext:",
        algorithm=algorithm,
    )


def _grown(folder: Path, keys: int) -> kagimori.ProtectionRing:
    """
    Return a ring whose keys followed each other hour by hour.
    """
    now = datetime.now(UTC)
    made: list[Element] = []
    for age in range(keys):
        at = now - timedelta(hours=age + 1)
        birth = Birth(at, now + timedelta(days=90))
        algorithm = PROTECTION_ALGORITHMS["AES_256_GCM"]
        made += minting.mint(PlaintextWrapper(), algorithm, at, birth).elements
    FolderStore(folder / "ring").commit(made, (), None)
    return _ring(folder)


def _against_dotnet(cipher: str, size: str) -> Callable[[], Figure]:
    """
    Return what times a protect and an unprotect, bytes to bytes, against .NET's own.
    """
    count = SIZES[size]

    def measure() -> Figure:
        peer = dp_peer()
        name, _, mac = ALGORITHMS[cipher].partition("_HMAC")
        with tempfile.TemporaryDirectory() as folder:
            ring = _ring(Path(folder), ALGORITHMS[cipher])
            protector, plaintext = ring.protector("bench"), secrets.token_bytes(count)
            payload = protector.protect_bytes(plaintext)

            def round_trip() -> None:
                protector.protect_bytes(plaintext)
                protector.unprotect_bytes(payload)

            def dotnet() -> float:
                said = subprocess.run(
                    [
                        peer,
                        *("bench", "--dir", f"{folder}/dotnet", "--null-wrap"),
                        *("--app", "bench", "--purpose", "bench", "--alg", name),
                        *(("--mac", f"HMAC{mac}") if mac else ()),
                        *("--size", str(count), "--seconds", "0.3"),
                    ],
                    check=True,
                    capture_output=True,
                ).stdout
                answer: dict[str, float] = json.loads(said)
                return answer["protect_us"] + answer["unprotect_us"]

            ours, theirs = in_turns(microseconds(round_trip), dotnet)
            ring.close()
        return Figure(
            f"dotnet-{cipher}-{size}",
            f"protect and unprotect {count} bytes, {ALGORITHMS[cipher]}, against .NET",
            "one thread, bytes to bytes; `dp-peer bench`, compiled code warmed by 20,000 calls",
            "µs",
            Better.LOWER,
            1.0,
            ours,
            theirs,
        )

    return measure


def text_forms() -> Figure:
    """
    Time the forms in text against those in bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        ring = _ring(Path(folder))
        protector, plaintext = ring.protector("bench"), secrets.token_bytes(200)
        text, payload = protector.protect(plaintext), protector.protect_bytes(plaintext)

        def in_text() -> None:
            protector.protect(plaintext)
            protector.unprotect(text)

        def in_bytes() -> None:
            protector.protect_bytes(plaintext)
            protector.unprotect_bytes(payload)

        ours, theirs = in_turns(microseconds(in_text), microseconds(in_bytes))
        ring.close()
    return Figure(
        "text-forms",
        "`protect` and `unprotect` against `protect_bytes` and `unprotect_bytes`",
        "one thread, 200 bytes, AES-256-GCM",
        "µs",
        Better.LOWER,
        1.5,
        ours,
        theirs,
    )


def opening() -> Figure:
    """
    Time the opening of a ring of 100 wrapped keys in a folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        _grown(Path(folder), WRAPPED_KEYS).close()

        def open_and_protect() -> float:
            begin = time.perf_counter()
            again = _ring(Path(folder))
            again.protector("bench").protect_bytes(b"x")
            taken = (time.perf_counter() - begin) * 1000
            again.close()
            return taken

        open_and_protect()
        values = [open_and_protect() for _ in range(PAIRS)]
    return Figure(
        "open-100",
        "open a ring of 100 wrapped keys in a folder and protect with it",
        "one thread, files in the disk cache, a wrapper that takes no time of its own",
        "ms",
        Better.LOWER,
        50,
        values,
    )


def many_keys() -> Figure:
    """
    Time an unprotect in a ring of 1,000 keys against one in a ring of one.
    """
    with tempfile.TemporaryDirectory() as name:
        large, small = _grown(Path(name) / "large", MANY_KEYS), _ring(Path(name))

        def opening_in(ring: kagimori.ProtectionRing) -> Callable[[], float]:
            protector = ring.protector("bench")
            payload = protector.protect_bytes(secrets.token_bytes(200))
            return microseconds(lambda: protector.unprotect_bytes(payload))

        ours, theirs = in_turns(opening_in(large), opening_in(small))
        large.close()
        small.close()
    return Figure(
        "keys-1000",
        "`unprotect_bytes` in a ring of 1,000 keys against one of a single key",
        "one thread, 200 bytes, AES-256-GCM",
        "µs",
        Better.LOWER,
        1.1,
        ours,
        theirs,
    )


def flood() -> Figure:
    """
    Time good payloads between unknown ones against good ones alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        ring = _ring(Path(folder))
        protector = ring.protector("bench")
        payload = protector.protect_bytes(secrets.token_bytes(200))
        unknown = [
            frame.MAGIC + secrets.token_bytes(16) + payload[frame.HEADER_BYTES :]
            for _ in range(100)
        ]
        good = 400
        refused = 0

        def time_good(before: Callable[[], None]) -> Callable[[], float]:
            def turn() -> float:
                best = float("inf")
                for _ in range(20):
                    before()
                    begin = time.thread_time()
                    for _ in range(good):
                        protector.unprotect_bytes(payload)
                    best = min(best, time.thread_time() - begin)
                return best / good * 1e6

            return turn

        def send_unknown() -> None:
            nonlocal refused
            for each in unknown:
                try:
                    protector.unprotect_bytes(each)
                except UnknownKeyIdError:
                    refused += 1

        ours, theirs = in_turns(time_good(send_unknown), time_good(lambda: None))
        ring.close()
    return Figure(
        "flood",
        "`unprotect_bytes` of good payloads after unknown ids against good ones alone",
        "one thread; 100 payloads of random ids before every 400 good ones",
        "µs",
        Better.LOWER,
        1.2,
        ours,
        theirs,
        {"unknown ids refused": f"{refused:,}"},
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    **{
        f"dotnet-{cipher}-{size}": _against_dotnet(cipher, size)
        for cipher in ALGORITHMS
        for size in SIZES
    },
    "text-forms": text_forms,
    "open-100": opening,
    "keys-1000": many_keys,
    "flood": flood,
}
