from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kagimori.errors import ConflictError, InvalidTokenError, StoreError
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore
from kagimori.tokens.denied import (
    DENIED,
    GREATEST_LEEWAY,
    deny_token,
    is_denied,
)
from kagimori.tokens.family import EndReason
from kagimori.tokens.redemption import Redemption
from kagimori.tokens.refresh_token import RefreshToken, TagKey
from tests.tokens.world import (
    ACCESS,
    CLIENT,
    PUBLIC,
    SECOND,
    TENANT,
    USER,
    Desk,
    changed,
)

HOUR = timedelta(hours=1)


class Office:
    """
    Several families of two users at two clients.
    """

    def __init__(self, store=None, policy=PUBLIC):
        self.clock = FixedClock()
        self.store = store or SpyStore(MemoryStore(self.clock))
        self.desk = Desk(self.store, policy=policy)
        self.revocation = self.desk.families.revocation
        self.texts = {}

    async def fill(self, each=1):
        for user in (USER, "u_2"):
            await self.desk.add_user(user)
            for client in (CLIENT, "phone"):
                self.texts[user, client] = [
                    (
                        await self.desk.open(self.clock, user=user, client=client)
                    ).token.text
                    for _ in range(each)
                ]
        return self

    async def outcomes(self):
        return {
            key: {
                (await self.desk.redeem(text, client=key[1])).outcome for text in texts
            }
            for key, texts in self.texts.items()
        }


def run(story, **fields):
    async def live():
        return await story(await Office(**fields).fill())

    return asyncio.run(live())


GONE, ALIVE = {Redemption.REVOKED}, {Redemption.ROTATED}


def test_B9_by_user():
    """
    Revoking a user ends all of that user's families and nobody else's.
    """

    async def story(office):
        count = await office.revocation.revoke_user(TENANT, USER)
        return count, await office.outcomes()

    count, outcomes = run(story)

    assert 2 == count
    assert all(
        result == (GONE if user == USER else ALIVE)
        for (user, _), result in outcomes.items()
    )


def test_B9_by_client():
    """
    Revoking a client ends the families of all users there and nowhere else.
    """

    async def story(office):
        count = await office.revocation.revoke_client(TENANT, CLIENT)
        return count, await office.outcomes()

    count, outcomes = run(story)

    assert 2 == count
    assert all(
        result == (GONE if client == CLIENT else ALIVE)
        for (_, client), result in outcomes.items()
    )


def test_B9_by_family():
    """
    Revoking one family ends that one, once, and denies its access tokens.
    """

    async def story(office):
        family = RefreshToken.parse(office.texts[USER, CLIENT][0]).family_id
        first = await office.revocation.revoke_family(TENANT, family)
        second = await office.revocation.revoke_family(TENANT, family)
        unknown = await office.revocation.revoke_family(TENANT, "A" * 22)
        denied = await is_denied(office.store, TENANT, jti="x", family_id=family)
        return (first, second, unknown, denied), await office.outcomes()

    answers, outcomes = run(story)

    assert (True, False, False, True) == answers
    assert GONE == outcomes.pop((USER, CLIENT))
    assert [ALIVE] * 3 == list(outcomes.values())


def test_B9_signing_in_again_works():
    """
    What was ended stays ended, and a new sign-in is a new family.
    """

    async def story(office):
        await office.revocation.revoke_user(TENANT, USER)
        await office.revocation.revoke_client(TENANT, CLIENT)
        opened = await office.desk.open(office.clock, epoch=1)
        return (await office.desk.redeem(opened.token.text)).outcome

    assert Redemption.ROTATED is run(story)


def test_B9_raising_the_epoch_alone_ends_everything():
    """
    After the first commit no family of before is usable, however far the rest has come.
    """

    class Dying(SpyStore):
        dies = False

        async def find(self, *args, **fields):
            if self.dies:
                raise StoreError("gone", transient=True)
            return await super().find(*args, **fields)

    async def live():
        clock = FixedClock()
        office = Office(Dying(MemoryStore(clock)))
        await office.fill()
        office.store.dies = True
        for revoke in (
            office.revocation.revoke_user(TENANT, USER),
            office.revocation.revoke_client(TENANT, "phone"),
        ):
            with pytest.raises(StoreError):
                await revoke
        return await office.outcomes()

    outcomes = asyncio.run(live())

    assert ALIVE == outcomes.pop(("u_2", CLIENT))
    assert [GONE] * 3 == list(outcomes.values())


def test_B9_repeating_an_interrupted_revocation_finishes_it():
    """
    Called again it goes on where it stopped: every family is marked, with its reason.
    """

    class Dying(SpyStore):
        lives = 2

        async def commit(self, tenant, changes):
            if any(change.kind == "denied" for change in changes):
                self.lives -= 1
                if self.lives == 0:
                    raise StoreError("gone", transient=True)
            return await super().commit(tenant, changes)

    async def live():
        clock = FixedClock()
        office = Office(Dying(MemoryStore(clock)), changed(PUBLIC, max_families=100))
        await office.fill(each=40)
        with pytest.raises(StoreError):
            await office.revocation.revoke_user(TENANT, USER, EndReason.OPERATOR)
        again = await office.revocation.revoke_user(
            TENANT, USER, EndReason.OPERATOR, epoch=1
        )
        families = await office.desk.families.list_families(TENANT, user=USER)
        return again, {family.revoke_reason for family in families}, len(families)

    again, reasons, count = asyncio.run(live())

    assert 80 - 14 == again
    assert ({EndReason.OPERATOR}, 80) == (reasons, count)


def test_B9_more_families_than_a_page():
    """
    Revoking pages through the index and misses nobody.
    """

    async def live():
        office = Office(policy=changed(PUBLIC, max_families=900))
        await office.fill(each=230)
        count = await office.revocation.revoke_user(TENANT, USER)
        families = await office.desk.families.list_families(
            TENANT, user=USER, limit=1000
        )
        return count, sum(family.revoked_at is None for family in families)

    assert (460, 0) == asyncio.run(live())


def test_B9_a_family_that_refreshes_all_the_time_is_caught():
    """
    REV-4: conflicts with refreshes delay a revocation and do not stop it.
    """

    class Busy(SpyStore):
        conflicts = 0

        async def commit(self, tenant, changes):
            denies = any(change.kind == "denied" for change in changes)
            if denies and self.conflicts:
                self.conflicts -= 1
                raise ConflictError("a refresh came first")
            return await super().commit(tenant, changes)

    async def live():
        office = Office(Busy(MemoryStore(FixedClock())))
        await office.fill()
        office.store.conflicts = 12
        return await office.revocation.revoke_user(TENANT, USER)

    assert 2 == asyncio.run(live())


@pytest.mark.parametrize("whom", ["user", "client"])
def test_R7_a_family_being_opened_at_that_moment_is_born_dead(whom):
    """
    R7: a revocation between the reading and the writing of a sign-in leaves no family.
    """

    class Overtaken(SpyStore):
        rival = None

        async def commit(self, tenant, changes):
            rival, self.rival = self.rival, None
            if rival is not None:
                await rival
            return await super().commit(tenant, changes)

    async def live():
        office = Office(Overtaken(MemoryStore(FixedClock())))
        await office.desk.add_user()
        revoke = {
            "user": office.revocation.revoke_user(TENANT, USER),
            "client": office.revocation.revoke_client(TENANT, CLIENT),
        }
        office.store.rival = revoke.pop(whom)
        revoke.popitem()[1].close()
        with pytest.raises(InvalidTokenError):
            await office.desk.open(office.clock)
        made = await office.store.count(TENANT, "family")
        await office.desk.open(office.clock, epoch=1 if whom == "user" else 0)
        return made, await office.store.count(TENANT, "family")

    assert (0, 1) == asyncio.run(live())


@pytest.mark.parametrize("whom", ["user", "client"])
def test_B9_a_sign_in_made_after_the_sign_out_lives(whom):
    """
    What is opened between the raised epoch and the last revoked family is of after.
    """

    class Between(SpyStore):
        then = None

        async def find(self, *args, **fields):
            then, self.then = self.then, None
            if then is not None:
                await then()
            return await super().find(*args, **fields)

    async def live():
        office = Office(Between(MemoryStore(FixedClock())))
        await office.fill()
        new = []

        async def sign_in():
            epoch = 1 if whom == "user" else 0
            new.append(await office.desk.open(office.clock, epoch=epoch))

        office.store.then = sign_in
        count = await {
            "user": lambda: office.revocation.revoke_user(TENANT, USER),
            "client": lambda: office.revocation.revoke_client(TENANT, CLIENT),
        }[whom]()
        verdict = await office.desk.redeem(new[0].token.text)
        return count, verdict.outcome, await office.outcomes()

    count, outcome, others = asyncio.run(live())

    assert (2, Redemption.ROTATED) == (count, outcome)
    assert GONE == others[USER, CLIENT]


# --- by token (RFC 7009) -------------------------------------------------------------------


def test_REV3_a_token_ends_its_family_whichever_it_is():
    """
    REV-3: the current token, or one retired long ago, revokes the family and says yes.
    """

    async def story(office):
        text = office.texts[USER, CLIENT][0]
        newer = (await office.desk.redeem(text)).token.text
        told = await office.revocation.revoke_token(TENANT, text, client=CLIENT)
        again = await office.revocation.revoke_token(TENANT, newer, client=CLIENT)
        verdict = await office.desk.redeem(newer)
        return told, again, verdict.outcome, verdict.family.revoke_reason

    assert (True, True, Redemption.REVOKED, EndReason.TOKEN_REVOKED) == run(story)


def test_REV2_another_clients_token_stays():
    """
    REV-2: nothing is revoked, and the caller may answer an error.
    """

    async def story(office):
        text = office.texts[USER, CLIENT][0]
        told = await office.revocation.revoke_token(TENANT, text, client="phone")
        return told, (await office.desk.redeem(text)).outcome

    assert (False, Redemption.ROTATED) == run(story)


@pytest.mark.parametrize("what", ["garbage", "unknown family", "guessed tag"])
def test_REV1_what_is_no_token_of_ours_is_no_error(what):
    """
    REV-1: unknown tokens are answered alike; whoever guesses a family's id revokes nothing.
    """

    async def story(office):
        text = office.texts[USER, CLIENT][0]
        key = TagKey(b"k" * 32)
        guessed = {
            "garbage": "kgm_rt_garbage",
            "unknown family": RefreshToken.make("A" * 22, 1, b"s" * 32, key).text,
            "guessed tag": RefreshToken.make(
                RefreshToken.parse(text).family_id, 1, b"s" * 32, key
            ).text,
        }[what]
        told = await office.revocation.revoke_token(TENANT, guessed, client=CLIENT)
        return told, (await office.desk.redeem(text)).outcome

    assert (True, Redemption.ROTATED) == run(story)


def test_a_token_is_revocable_without_its_tag_key():
    """
    Losing the ring's key takes the current token's revocability from nobody.
    """

    async def story(office):
        text = office.texts[USER, CLIENT][0]
        office.desk.ring.forget("key-1")
        await office.revocation.revoke_token(TENANT, text, client=CLIENT)
        return (await office.desk.redeem(text)).outcome

    assert Redemption.REVOKED is run(story)


# --- the deny set --------------------------------------------------------------------------


def test_B9_a_revoked_familys_access_tokens_are_denied_until_the_last_has_expired():
    """
    The entry lives as long as any access token of the family at any verifier, and no longer.
    """

    async def story(office):
        family = RefreshToken.parse(office.texts[USER, CLIENT][0]).family_id
        await office.revocation.revoke_family(TENANT, family)
        seen = []
        for step in (ACCESS + GREATEST_LEEWAY - SECOND, SECOND):
            office.clock.advance(step)
            seen.append(
                await is_denied(office.store, TENANT, jti="x", family_id=family)
            )
        return seen

    assert [True, False] == run(story)


def test_one_access_token_is_denied_by_its_id():
    """
    A revoked access token is denied, twice without harm, and no other with it.
    """

    async def story(office):
        expires = office.clock.now() + HOUR
        for _ in range(2):
            await deny_token(office.store, TENANT, "one", expires)
        await deny_token(office.store, TENANT, "over", office.clock.now() - HOUR)
        seen = [
            await is_denied(office.store, TENANT, jti=jti, family_id="f")
            for jti in ("one", "two", "over")
        ]
        elsewhere = await is_denied(office.store, "other", jti="one")
        return seen, elsewhere, await office.store.count(TENANT, DENIED.kind)

    assert ([True, False, False], False, 1) == run(story)


def test_a_jti_is_no_family():
    """
    A token id that equals a family's id denies the token and not the family.
    """

    async def story(office):
        await deny_token(office.store, TENANT, "same", office.clock.now() + HOUR)
        return await is_denied(office.store, TENANT, jti="other", family_id="same")

    assert run(story) is False


def test_every_end_is_told_once():
    """
    B10: each family that ended has one event, with its reason.
    """

    async def story(office):
        await office.revocation.revoke_user(TENANT, USER)
        await office.revocation.revoke_client(TENANT, CLIENT)
        return [
            (event.fields["user"], event.fields["client"], event.fields["reason"])
            for event in office.desk.events
            if event.name == "family.revoked"
        ]

    assert [
        ("u_1", "app", "user_signed_out"),
        ("u_1", "phone", "user_signed_out"),
        ("u_2", "app", "client_revoked"),
    ] == sorted(run(story))
