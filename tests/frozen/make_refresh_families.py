"""
Makes the frozen refresh-token families of the present release.

Run once for a release, from the root of the repository, and never again for that release:

    PYTHONPATH=src python tests/frozen/make_refresh_families.py tests/frozen/0.1

All randomness is counted, so the same code makes the same files.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

import kagimori
from kagimori.crypto.digests import b64url_encode
from kagimori.tokens.denied import Denied
from kagimori.tokens.family import EndReason, SealedTagKey, Seen, open_family
from kagimori.tokens.policy import RefreshPolicy, Rotation
from kagimori.tokens.records import CLIENT_EPOCHS, FAMILIES, ClientEpoch
from kagimori.tokens.redeem import redeem
from kagimori.tokens.redemption import (
    Randomness,
    RedeemRequest,
    TagKeys,
    UserStanding,
)
from kagimori.tokens.refresh_token import RefreshToken, TagKey

START = datetime(2027, 1, 1, tzinfo=UTC)
SEEN = Seen("192.0.2.1", "browser/1")


class Counter:
    """
    Bytes that look random and are the same each time.
    """

    def __init__(self, name):
        self._name = name
        self._count = 0

    def __call__(self, length):
        self._count += 1
        text = f"{self._name} {self._count}".encode()
        return hashlib.shake_256(text).digest(length)


def make(name, policy, rotations, **fields):
    """
    Return one family, all its tokens and what presenting each must lead to.
    """
    draw = Counter(name)
    raw_key = draw(32)
    key = TagKey(raw_key)
    sealed = SealedTagKey("not opened by the tests of frozen families", "key-1")
    now = START
    opened = open_family(
        id_=b64url_encode(draw(16)),
        tenant="default",
        client="app",
        user="u_1",
        policy=policy,
        longest_access=timedelta(minutes=10),
        secret=draw(32),
        tag_key=key,
        sealed_tag_key=sealed,
        now=now,
        seen=SEEN,
        **{"scope": ("read", "write"), "resources": ("urn:example:api",)} | fields,
    )
    family, tokens = opened.family, [opened.token]

    def request(token):
        return RedeemRequest(
            token=token,
            client="app",
            policy=policy,
            user=UserStanding(),
            tag_keys=TagKeys(key, key, sealed),
            randomness=Randomness(draw(32), draw(12)),
            longest_access=timedelta(minutes=10),
            seen=SEEN,
        )

    for _ in range(rotations):
        now += policy.idle_lifetime * 0.8
        verdict = redeem(family, request(tokens[-1]), now)
        family = verdict.family
        tokens.append(verdict.token)
    if "revoked" in name:
        family = family.revoke(EndReason.REUSE, now)
    expected = []
    for token in tokens:
        for after in (1, 31, 86_399, 86_401):
            verdict = redeem(family, request(token), now + timedelta(seconds=after))
            replayed = verdict.token if verdict.outcome.value == "replayed" else None
            expected.append(
                {
                    "generation": token.generation,
                    "seconds_after": after,
                    "outcome": verdict.outcome.value,
                    "same_successor": replayed and replayed.text,
                }
            )
    return {
        "name": name,
        "now": now.isoformat(),
        "tag_key": raw_key.hex(),
        "policy": json.loads(msgspec.json.encode(policy)),
        "family": json.loads(FAMILIES.put("x", family, 0).body),
        "tokens": [token.text for token in tokens],
        "expected": expected,
    }


def main(folder):
    public, confidential = RefreshPolicy.for_public(), RefreshPolicy.for_confidential()
    confidential_long = msgspec.structs.replace(
        confidential, idle_lifetime=timedelta(days=10)
    )
    near = msgspec.structs.replace(confidential, rotation=Rotation.NEAR_EXPIRY)
    never = msgspec.structs.replace(confidential, rotation=Rotation.NEVER)
    families = [
        make("new", public, 0),
        make("rotated once", public, 1),
        make("rotated beyond its history", confidential_long, 40),
        make(
            "all fields",
            public,
            2,
            session="s_1",
            grant="g_1",
            auth_time=START,
            acr="1",
            amr=("pwd", "otp"),
            device="a telephone",
        ),
        make("rotated near expiry", near, 1),
        make("kept", never, 0),
        make("revoked after reuse", public, 2),
    ]
    others = {
        "denied": json.loads(
            msgspec.json.encode(Denied(START, START + timedelta(minutes=11)))
        ),
        "client_epoch": json.loads(
            CLIENT_EPOCHS.put("app", ClientEpoch(2, START), 0).body
        ),
    }
    frozen = {
        "made_with": f"kagimori {kagimori.__version__}",
        "made_by": "tests/frozen/make_refresh_families.py",
        "families": families,
        "documents": others,
    }
    path = Path(folder) / "refresh_families.json"
    path.write_text(json.dumps(frozen, indent=1) + "\n", encoding="utf-8")
    # What was written must be readable before it is frozen.
    for each in families:
        for text in each["tokens"]:
            RefreshToken.parse(text)


if __name__ == "__main__":
    main(sys.argv[1])
