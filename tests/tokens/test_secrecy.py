from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import traceback

import msgspec
import pytest

import kagimori.tokens
from kagimori.crypto.digests import b64url_encode
from kagimori.errors import KagimoriError
from kagimori.tokens.family import Opened, open_family
from kagimori.tokens.issuer import IssuedToken
from kagimori.tokens.redemption import Randomness
from kagimori.tokens.refresh_token import RefreshToken, TagKey
from kagimori.tokens.successor import open_successor, seal_successor
from kagimori.tokens.tag_keys import OpenedTagKeys
from tests.tokens.world import ACCESS, PUBLIC, Ring, Story

SECRET, NEXT_SECRET, NONCE, TAG_KEY = (
    bytes([n]) * size for n, size in ((7, 32), (9, 32), (11, 12), (13, 32))
)


def forms(secret):
    """
    Return how a secret may look when somebody prints it.
    """
    return {
        secret.hex(),
        secret.hex().upper(),
        b64url_encode(secret),
        b64url_encode(secret)[2:-4],
        repr(secret)[2:-1],
        str(list(secret))[1:-1],
    }


def things():
    """
    Return an object of each type here that has seen a secret, and the secrets' forms.
    """
    story = Story()
    story.tag_key = TagKey(TAG_KEY)
    opened = open_family(
        id_=story.family.id,
        tenant="t",
        client="app",
        user="u",
        policy=PUBLIC,
        longest_access=ACCESS,
        secret=SECRET,
        tag_key=story.tag_key,
        sealed_tag_key=story.sealed,
        now=story.now,
    )
    story.family, story.tokens = opened.family, {1: opened.token}
    randomness = Randomness(NEXT_SECRET, NONCE)
    request = story.request(opened.token, randomness=randomness)
    verdict = story.present(opened.token, randomness=randomness)
    remembered = OpenedTagKeys()
    remembered.put("t", story.sealed, story.tag_key)
    objects = [
        remembered,
        opened,
        opened.token,
        story.tag_key,
        randomness,
        request,
        request.tag_keys,
        verdict,
        verdict.family,
        IssuedToken("header.payload.signature", "jti", 600),
    ]
    seen = {"header.payload.signature", "signature"}
    for secret in (SECRET, NEXT_SECRET, TAG_KEY):
        seen |= forms(secret)
    for token in (opened.token, verdict.token):
        seen |= {token.text, token.text[7:]} | forms(token.to_bytes())
    return objects, seen


OBJECTS, SECRETS = things()


def shown(thing):
    """
    Return all that the usual ways of looking at an object show.
    """
    texts = [
        repr(thing),
        str(thing),
        f"{thing}",
        f"{thing!r}",
        repr([thing, {1: thing}]),
    ]
    if dataclasses.is_dataclass(thing):
        texts.append(repr(dataclasses.asdict(thing)))
    if isinstance(thing, msgspec.Struct):
        texts += [
            repr(msgspec.structs.asdict(thing)),
            repr(msgspec.structs.astuple(thing)),
        ]
    texts.append(repr(getattr(thing, "__dict__", "")))
    if not isinstance(thing, IssuedToken):
        texts += [repr(copy.copy(thing)), repr(copy.deepcopy(thing))]
    return "\n".join(texts)


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
def test_K9_no_secret_shows_in_repr_str_or_asdict(thing):
    """
    K9: however an object is printed, no token, secret, tag key or nonce is in it.
    """
    text = shown(thing)

    assert text
    assert [] == [secret for secret in SECRETS if secret in text]


def test_K9_the_forms_that_are_looked_for_are_the_right_ones():
    """
    The twin: a careless holder of the same secrets is caught.
    """
    careless = dataclasses.make_dataclass("Careless", ["secret"])(SECRET)

    assert [] != [secret for secret in SECRETS if secret in shown(careless)]


HOLDERS = [RefreshToken, TagKey, Randomness, IssuedToken]


def test_K9_every_type_here_is_looked_at():
    """
    A new type of this package is either known to hold no secret or is among those above.
    """
    harmless = {
        "AccessTokenClaims",
        "AccessTokenPayload",
        "CheckedClaims",
        "ClientEpoch",
        "Denied",
        "EndReason",
        "FamilyEnd",
        "FamilyRevocation",
        "Inspection",
        "JwksFetch",
        "JwksSource",
        "OnReuse",
        "RefreshFamilies",
        "RefreshPolicy",
        "RefreshTokenFamily",
        "Redemption",
        "ReplayCounts",
        "Rotation",
        "SealedTagKey",
        "Seen",
        "TagKeyReader",
        "TagKeyring",
        "TokenIssuer",
        "TokenVerifier",
        "UserStanding",
        "VerifiedToken",
        "IssuingKey",
        "IssuingKeys",
        "JwsSigner",
        "OpenedTagKey",
        "TagKeyProtector",
        "TagKeyRoot",
    }
    found = set()
    for module in pkgutil.iter_modules(kagimori.tokens.__path__, "kagimori.tokens."):
        loaded = importlib.import_module(module.name)
        for name, each in inspect.getmembers(loaded, inspect.isclass):
            if each.__module__ == module.name and not name.startswith("_"):
                found.add(name)

    assert found - harmless == {type(thing).__name__ for thing in OBJECTS} - harmless


@pytest.mark.parametrize(
    "thing",
    [t for t in OBJECTS if isinstance(t, (RefreshToken, TagKey, IssuedToken, Opened))],
    ids=lambda thing: type(thing).__name__,
)
def test_K9_secrets_are_not_pickled(thing):
    """
    K9: what holds a secret does not leave the process by pickle.
    """
    with pytest.raises(TypeError):
        pickle.dumps(thing)


def test_K9_a_traceback_with_its_errors_quotes_no_token():
    """
    K9: the errors of parsing and of opening seals hold no part of what they refused.
    """
    token = RefreshToken.make(b64url_encode(b"f" * 16), 1, SECRET, TagKey(TAG_KEY))
    other = RefreshToken.make(b64url_encode(b"f" * 16), 1, NEXT_SECRET, TagKey(TAG_KEY))
    sealed = seal_successor(token, other, NONCE)
    texts = []
    for attempt in (
        lambda: RefreshToken.parse(token.text[:-1]),
        lambda: RefreshToken.parse(token.text + "é"),
        lambda: open_successor(other, sealed),
        lambda: open_successor(token, sealed[:-1]),
        lambda: Ring().unprotect("key-1." + "A" * 60),
    ):
        with pytest.raises(KagimoriError) as caught:
            attempt()
        error = caught.value
        texts += traceback.format_exception(error, chain=True)
        texts += [repr(error), error.detail, error.hint, repr(error.params)]

    text = "\n".join(texts)
    assert [] == [part for part in (token.text[7:-8], other.text[7:]) if part in text]
    assert open_successor(token, sealed).text == other.text
