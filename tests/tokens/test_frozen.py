"""
Tokens and families of every release so far are read by this one, to the same effect.

A release adds a folder under ``tests/frozen`` and never changes one: people are signed in with
these tokens. How a folder was made is said in `tests/frozen/make_refresh_families.py`.
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from kagimori.tokens.denied import Denied
from kagimori.tokens.family import RefreshTokenFamily
from kagimori.tokens.policy import RefreshPolicy
from kagimori.tokens.records import ClientEpoch
from kagimori.tokens.redeem import redeem
from kagimori.tokens.redemption import (
    Randomness,
    RedeemRequest,
    TagKeys,
    UserStanding,
)
from kagimori.tokens.refresh_token import RefreshToken, TagKey

FOLDERS = sorted(
    (Path(__file__).parent.parent / "frozen").glob("*/refresh_families.json")
)
FROZEN = {path.parent.name: json.loads(path.read_text("utf-8")) for path in FOLDERS}
FAMILIES = [
    pytest.param(each, id=f"{release} {each['name']}")
    for release, frozen in FROZEN.items()
    for each in frozen["families"]
]


def test_the_first_release_is_there():
    """
    The files are found; an empty folder would prove nothing.
    """
    assert "0.1" in FROZEN
    assert len(FAMILIES) >= 7


@pytest.mark.parametrize("frozen", FAMILIES)
def test_frozen_tokens_parse_and_prove_themselves(frozen):
    """
    B3: every token that was ever issued parses to its generation and carries a sound tag.
    """
    key = TagKey(bytes.fromhex(frozen["tag_key"]))
    tokens = [RefreshToken.parse(text) for text in frozen["tokens"]]

    assert list(range(1, len(tokens) + 1)) == [token.generation for token in tokens]
    assert {frozen["family"]["id"]} == {token.family_id for token in tokens}
    assert all(token.is_tagged_by(key) for token in tokens)


@pytest.mark.parametrize("frozen", FAMILIES)
def test_frozen_families_judge_as_they_did(frozen):
    """
    B5: each token leads to the outcome of then, and a replay to the very same successor.
    """
    family = msgspec.convert(frozen["family"], RefreshTokenFamily)
    policy = msgspec.convert(frozen["policy"], RefreshPolicy)
    key = TagKey(bytes.fromhex(frozen["tag_key"]))
    now = datetime.fromisoformat(frozen["now"])
    seen = []
    for expected in frozen["expected"]:
        request = RedeemRequest(
            token=RefreshToken.parse(frozen["tokens"][expected["generation"] - 1]),
            client="app",
            policy=policy,
            user=UserStanding(),
            tag_keys=TagKeys(key, key, family.tag_key),
            randomness=Randomness(secrets.token_bytes(32), secrets.token_bytes(12)),
            longest_access=timedelta(minutes=10),
        )
        at = now + timedelta(seconds=expected["seconds_after"])
        verdict = redeem(family, request, at)
        replayed = expected["outcome"] == "replayed"
        seen.append(
            expected
            | {
                "outcome": verdict.outcome.value,
                "same_successor": verdict.token.text if replayed else None,
            }
        )

    assert frozen["expected"] == seen


@pytest.mark.parametrize("release", FROZEN)
def test_frozen_documents_are_read(release):
    """
    Entries of the deny set and clients' epochs of that release are understood.
    """
    documents = FROZEN[release]["documents"]

    assert msgspec.convert(documents["denied"], Denied).since.year == 2027
    assert 2 == msgspec.convert(documents["client_epoch"], ClientEpoch).epoch
