"""
A process that opens a ring beside many others.

``python -m tests.ring_stores.ring_worker LOCATION WRAPPER``: says ``ready``, waits for a line,
opens, says key id and a payload, then opens every payload that it is given, a line each.
"""

from __future__ import annotations

import sys

from kagimori import open_ring


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    location, wrapper = sys.argv[1:]
    say("ready")
    sys.stdin.readline()
    ring = open_ring(location, application="shop", wrapper=wrapper)
    protector = ring.protector("cookie")
    say(ring.current_key_id)
    say(protector.protect(b"hello"))
    for line in sys.stdin:
        say(protector.unprotect(line.strip()).payload.decode())


if __name__ == "__main__":
    main()
