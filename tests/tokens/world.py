"""
What the tests of tokens share: a family in its hands, and a ring that can turn and forget.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import NamedTuple

import msgspec

from kagimori.crypto.aead import gcm_open, gcm_seal
from kagimori.crypto.digests import b64url_decode, b64url_encode, random_id
from kagimori.errors import ProtectionError
from kagimori.storage.store import ABSENT, Put
from kagimori.testing.clock import FixedClock
from kagimori.tokens.families import RefreshFamilies
from kagimori.tokens.family import NOWHERE, SealedTagKey, Seen, open_family
from kagimori.tokens.policy import RefreshPolicy
from kagimori.tokens.redeem import redeem
from kagimori.tokens.redemption import (
    Randomness,
    RedeemRequest,
    TagKeys,
    UserStanding,
)
from kagimori.tokens.refresh_token import RefreshToken, TagKey

CLIENT, USER, TENANT = "app", "u_1", "default"
API, MAIL = "urn:example:api", "urn:example:mail"
ACCESS = timedelta(minutes=10)
SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)
W = timedelta(seconds=30)

PUBLIC = RefreshPolicy.for_public()
CONFIDENTIAL = RefreshPolicy.for_confidential()


def changed(policy, **fields):
    """
    Return a policy with other knobs.
    """
    return msgspec.structs.replace(policy, **fields)


class Story:
    """
    One family, its tokens by generation, and the clock; what is decided is taken over.
    """

    def __init__(self, policy=PUBLIC, **fields):
        self.clock = FixedClock()
        self.policy = policy
        self.tag_key = TagKey(secrets.token_bytes(32))
        self.sealed = SealedTagKey("sealed-tag-key", "ring-key-1")
        self.user = UserStanding()
        opened = open_family(
            **{
                "id_": random_id(16),
                "tenant": TENANT,
                "client": CLIENT,
                "user": USER,
                "policy": policy,
                "longest_access": ACCESS,
                "secret": secrets.token_bytes(32),
                "tag_key": self.tag_key,
                "sealed_tag_key": self.sealed,
                "now": self.clock.now(),
                "scope": ("read", "write"),
                "resources": (API, MAIL),
            }
            | fields
        )
        self.family = opened.family
        self.tokens = {1: opened.token}

    @property
    def now(self):
        return self.clock.now()

    @property
    def current(self):
        return self.tokens[self.family.generation]

    def after(self, time):
        self.clock.advance(time)
        return self

    def request(self, token, **fields):
        return RedeemRequest(
            **{
                "token": token,
                "client": CLIENT,
                "policy": self.policy,
                "user": self.user,
                "tag_keys": TagKeys(self.tag_key, self.tag_key, self.sealed),
                "randomness": fresh(),
                "longest_access": ACCESS,
            }
            | fields
        )

    def judge(self, token, **fields):
        """
        Return the verdict and change nothing.
        """
        # Through the text and back: what a client holds is text.
        parsed = RefreshToken.parse(token.text)
        return redeem(self.family, self.request(parsed, **fields), self.now)

    def present(self, token=None, **fields):
        """
        Return the verdict and take it over.
        """
        verdict = self.judge(token or self.current, **fields)
        self.family = verdict.family
        if verdict.token is not None:
            self.tokens[verdict.token.generation] = verdict.token
        return verdict

    def rotate(self, times=1, every=SECOND):
        """
        Use the current token some times; the last use is one `every` ago.
        """
        for _ in range(times):
            verdict = self.present()
            assert verdict.is_changed
            self.after(every)
        return self

    def token(self, generation, tag_key=None):
        """
        Return a token of this family with another secret.
        """
        return RefreshToken.make(
            self.family.id,
            generation,
            secrets.token_bytes(32),
            tag_key or self.tag_key,
        )


def fresh():
    return Randomness(secrets.token_bytes(32), secrets.token_bytes(12))


# --- the ring and the store ----------------------------------------------------------------


class Unprotected(NamedTuple):
    """
    What the ring of these tests opens.
    """

    payload: bytes
    needs_renewal: bool
    key_id: str


class Ring:
    """
    A protection ring that can turn, and lose keys; all protectors of it see that.
    """

    def __init__(self, keys=None, aad=b""):
        self.keys = {"key-1": secrets.token_bytes(32)} if keys is None else keys
        self._aad = aad

    @property
    def current(self):
        return next(reversed(self.keys))

    def turn(self):
        self.keys[f"key-{len(self.keys) + 1}"] = secrets.token_bytes(32)

    def forget(self, key_id):
        self.keys[f"{key_id} (lost)"] = self.keys.pop(key_id)
        self.turn()

    def protector(self, *purposes):
        return Ring(self.keys, "\0".join(purposes).encode())

    def protect(self, payload):
        nonce, current = secrets.token_bytes(12), self.current
        sealed = gcm_seal(self.keys[current], nonce, payload, self._aad)
        return f"{current}.{b64url_encode(nonce + sealed)}"

    def unprotect(self, text):
        key_id, _, data = text.partition(".")
        if key_id not in self.keys:
            raise ProtectionError("The payload is not valid here.")
        raw = b64url_decode(data)
        payload = gcm_open(self.keys[key_id], raw[:12], raw[12:], self._aad)
        return Unprotected(payload, key_id != self.current, key_id)

    def unprotect_at_hand(self, text):
        return self.unprotect(text)

    def protects(self, key_id):
        return key_id == self.current if key_id in self.keys else None


class StoredUser(msgspec.Struct):
    """
    As much of a user's document as families look at, and something that they do not.
    """

    id: str
    epoch: int = 0
    disabled: bool = False
    name: str = "Somebody"


def put_user(user, expect=ABSENT):
    body = msgspec.json.encode(user)
    return Put("user", user.id, body, expect, {"username": user.id})


def raise_epoch(document):
    user = msgspec.json.decode(document.body, type=StoredUser)
    user.epoch += 1
    return put_user(user, document.version)


class Events(list):
    """
    A sink that keeps what it is told.
    """

    emit = list.append

    @property
    def names(self):
        return [event.name for event in self]


class Desk:
    """
    Families in a store, as an instance of a server works with them.
    """

    def __init__(self, store, ring=None, policy=PUBLIC, replays=None):
        self.store = store
        self.ring = ring or Ring()
        self.policy = policy
        self.events = Events()
        self.families = RefreshFamilies(
            store,
            self.ring,
            raise_epoch=raise_epoch,
            events=self.events,
            replays=replays,
        )

    async def add_user(self, user=USER, **fields):
        await self.store.commit(TENANT, [put_user(StoredUser(user, **fields))])

    async def open(self, clock, user=USER, client=CLIENT, epoch=0, **fields):
        return await self.families.open_family(
            TENANT,
            **{
                "client": client,
                "user": user,
                "epoch": epoch,
                "policy": self.policy,
                "longest_access": ACCESS,
                "now": clock.now(),
                "scope": ("read", "write"),
                "resources": (API, MAIL),
            }
            | fields,
        )

    async def redeem(self, text, client=CLIENT, seen=NOWHERE, **fields):
        return await self.families.redeem_token(
            TENANT,
            text,
            **{
                "client": client,
                "policy": self.policy,
                "longest_access": ACCESS,
                "seen": seen,
            }
            | fields,
        )


HOME = Seen("192.0.2.1", "browser/1")
ELSEWHERE = Seen("198.51.100.9", "robot/2")
