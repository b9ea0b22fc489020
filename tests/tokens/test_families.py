from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from kagimori.errors import (
    ConflictError,
    ContentionError,
    InvalidTokenError,
    StoreError,
)
from kagimori.storage.store import Put
from kagimori.testing.clock import FixedClock
from kagimori.testing.memory_store import MemoryStore
from kagimori.testing.spy_store import SpyStore
from kagimori.tokens.denied import is_denied
from kagimori.tokens.family import EndReason
from kagimori.tokens.policy import OnReuse, Rotation
from kagimori.tokens.records import FAMILIES, RETENTION
from kagimori.tokens.redemption import Redemption
from kagimori.tokens.refresh_token import RefreshToken, TagKey
from kagimori.tokens.replays import ReplayCounts
from tests.tokens.world import (
    ACCESS,
    CLIENT,
    CONFIDENTIAL,
    ELSEWHERE,
    HOME,
    MAIL,
    PUBLIC,
    SECOND,
    TENANT,
    USER,
    Desk,
    StoredUser,
    W,
    changed,
    put_user,
)

LATER = timedelta(hours=1)


class Server:
    """
    A desk on a spied memory store, with a user.
    """

    def __init__(self, policy=PUBLIC, **fields):
        self.clock = FixedClock()
        self.spy = SpyStore(MemoryStore(self.clock))
        self.desk = Desk(self.spy, policy=policy, **fields)
        self.families = self.desk.families

    async def __aenter__(self):
        await self.desk.add_user()
        return self

    async def __aexit__(self, *_):
        await self.spy.close()

    async def sign_in(self, **fields):
        return (await self.desk.open(self.clock, **fields)).token.text

    async def redeem(self, text, **fields):
        return await self.desk.redeem(text, **fields)

    def after(self, time):
        self.clock.advance(time)
        return self

    async def set_user(self, **fields):
        document = (await self.spy.find(TENANT, "user"))[0]
        user = StoredUser(USER, **fields)
        await self.spy.commit(TENANT, [put_user(user, document.version)])


def run(story):
    """
    Run an async story on a server of its own.
    """

    async def live():
        async with Server() as server:
            return await story(server)

    return asyncio.run(live())


# --- round trips ---------------------------------------------------------------------------


def test_a_refresh_is_one_read_and_one_write():
    """
    One `load_many` of family, user and epoch by reference, and one commit of one document.
    """

    async def story(server):
        text = await server.sign_in()
        server.spy.clear()
        verdict = await server.redeem(text)
        return verdict.outcome, [str(call) for call in server.spy.calls]

    outcome, calls = run(story)

    assert Redemption.ROTATED is outcome
    assert ["load_many(family, user, client_epoch)", "commit(family)"] == calls


def test_a_replay_writes_nothing():
    """
    B5: a herd of replays is no storm of writes.
    """

    async def story(server):
        text = await server.sign_in()
        first = await server.redeem(text)
        server.spy.clear()
        again = [await server.redeem(text) for _ in range(5)]
        texts = {verdict.token.text for verdict in [first, *again]}
        return texts, server.spy.times("commit"), server.spy.times("load_many")

    texts, writes, reads = run(story)

    assert (1, 0, 5) == (len(texts), writes, reads)


def test_garbage_reaches_no_store():
    """
    B3: what is no token of ours by its form costs no query.
    """

    async def story(server):
        server.spy.clear()
        verdict = await server.redeem("kgm_rt_" + "A" * 94)
        return verdict.outcome, list(server.spy.calls), server.desk.events.names

    assert (Redemption.FORGED, [], ["refresh.forged"]) == run(story)


def test_an_unknown_family_and_a_bad_tag_look_alike():
    """
    B5, case 1: nothing is written, and nothing tells the two apart but the log.
    """

    async def story(server):
        text = await server.sign_in()
        token = RefreshToken.parse(text)
        key = TagKey(b"k" * 32)
        forged = RefreshToken.make(token.family_id, 1, b"s" * 32, key)
        unknown = RefreshToken.make("A" * 22, 1, b"s" * 32, key)
        server.spy.clear()
        verdicts = [await server.redeem(each.text) for each in (forged, unknown)]
        alive = await server.redeem(text)
        return [verdict.outcome for verdict in verdicts], alive.outcome

    assert ([Redemption.FORGED] * 2, Redemption.ROTATED) == run(story)


# --- the user, the client, the tenant ------------------------------------------------------

STANDINGS = [
    ("disabled", {"disabled": True}, EndReason.USER_DISABLED),
    ("signed out everywhere", {"epoch": 1}, EndReason.USER_SIGNED_OUT),
]


@pytest.mark.parametrize(
    ("name", "fields", "reason"), STANDINGS, ids=[s[0] for s in STANDINGS]
)
def test_T6_state_is_read_at_refresh(name, fields, reason):
    """
    T6: what became of the user since the sign-in ends the family, and its access tokens.
    """

    async def story(server):
        text = await server.sign_in()
        await server.set_user(**fields)
        verdict = await server.redeem(text)
        family = verdict.family
        denied = await is_denied(server.spy, TENANT, jti="x", family_id=family.id)
        return verdict.outcome, family.revoke_reason, denied

    assert (Redemption.REVOKED, reason, True) == run(story)


def test_T6_a_user_who_is_gone_ends_the_family():
    """
    T6: a deleted user's tokens do not work.
    """

    async def story(server):
        text = await server.sign_in()
        from kagimori.storage.store import Delete

        document = (await server.spy.find(TENANT, "user"))[0]
        await server.spy.commit(TENANT, [Delete("user", USER, document.version)])
        return (await server.redeem(text)).family.revoke_reason

    assert EndReason.USER_GONE is run(story)


def test_a_family_belongs_to_its_tenant():
    """
    J7: the same text at another tenant is an unknown token.
    """

    async def story(server):
        text = await server.sign_in()
        elsewhere = await server.families.redeem_token(
            "other", text, client=CLIENT, policy=PUBLIC, longest_access=ACCESS
        )
        return elsewhere.outcome, (await server.redeem(text)).outcome

    assert (Redemption.FORGED, Redemption.ROTATED) == run(story)


def test_a_damaged_user_document_is_a_store_error():
    """
    A stored user that cannot be read is an error of the store, not a verdict on the token.
    """

    async def story(server):
        text = await server.sign_in()
        document = (await server.spy.find(TENANT, "user"))[0]
        broken = Put("user", USER, b'{"epoch": "canary"}', document.version)
        await server.spy.commit(TENANT, [broken])
        with pytest.raises(StoreError) as caught:
            await server.redeem(text)
        return caught.value

    error = run(story)

    assert "canary" not in f"{error!r} {error} {error.detail}"


# --- reuse ---------------------------------------------------------------------------------


def test_reuse_ends_the_family_once_and_says_so_once():
    """
    R4: however many present the old token, there is one revocation and one event.
    """

    async def story(server):
        text = await server.sign_in()
        current = (await server.redeem(text)).token.text
        server.after(LATER)
        late = await asyncio.gather(*(server.redeem(text) for _ in range(50)))
        last = await server.redeem(current)
        return [verdict.outcome for verdict in late], last.outcome, server.desk.events

    outcomes, last, events = run(story)

    assert 1 == outcomes.count(Redemption.REUSE)
    assert 49 == outcomes.count(Redemption.REVOKED)
    assert Redemption.REVOKED is last
    assert 1 == events.names.count("refresh.reuse_detected")


def test_B7_reuse_may_end_all_of_the_user():
    """
    on_reuse revoke_user: the user's other families end too, in all clients.
    """

    async def live():
        policy = changed(CONFIDENTIAL, on_reuse=OnReuse.REVOKE_USER)
        async with Server(policy) as server:
            await server.desk.add_user("u_2")
            text = await server.sign_in()
            other = await server.sign_in(client="phone")
            stranger = await server.sign_in(user="u_2")
            await server.redeem((await server.redeem(text)).token.text)
            reuse = await server.after(LATER).redeem(text)
            ended = await server.redeem(other, client="phone")
            return reuse.outcome, ended, (await server.redeem(stranger)).outcome

    reuse, ended, stranger = asyncio.run(live())

    assert Redemption.REUSE is reuse
    assert Redemption.REVOKED is ended.outcome
    assert EndReason.REUSE is ended.family.revoke_reason
    assert Redemption.ROTATED is stranger


def test_K_is_counted_by_each_instance_for_each_generation():
    """
    replay_limit: beyond K replays of one generation 429, and another instance still answers.
    """

    async def live():
        async with Server(changed(PUBLIC, replay_limit=3)) as server:
            text = await server.sign_in()
            answers = [await server.redeem(text) for _ in range(6)]
            neighbour = Desk(server.spy, server.desk.ring, server.desk.policy)
            elsewhere = await neighbour.redeem(text)
            onward = await server.redeem(answers[0].token.text)
            return answers, elsewhere.outcome, onward.outcome

    answers, elsewhere, onward = asyncio.run(live())

    outcomes = [verdict.outcome for verdict in answers]
    assert [Redemption.ROTATED] + [Redemption.REPLAYED] * 3 == outcomes[:4]
    assert [Redemption.THROTTLED] * 2 == outcomes[4:]
    assert answers[-1].retry_after
    assert Redemption.REPLAYED is elsewhere
    assert Redemption.ROTATED is onward


def test_what_is_remembered_of_replays_is_bounded():
    """
    The memory for K holds the generations counted last, and no more.
    """
    counts = ReplayCounts(limit=3)
    for generation in (1, 2, 3, 1, 4):
        counts.add("f", generation)

    assert 3 == len(counts)
    assert [2, 0, 1, 1] == [counts.of("f", generation) for generation in (1, 2, 3, 4)]


# --- the protection ring -------------------------------------------------------------------


def test_R12_a_turned_ring_moves_tag_keys_with_the_next_write():
    """
    R12: after the ring turned all tokens work, and a refresh re-protects the tag key.
    """

    async def story(server):
        ring, text = server.desk.ring, await server.sign_in()
        ring.turn()
        verdict = await server.redeem(text)
        old = await server.spy.count(TENANT, "family", index_of("key-1"))
        new = await server.spy.count(TENANT, "family", index_of("key-2"))
        del ring.keys["key-1"]
        reuse = await server.after(LATER).redeem(text)
        return verdict.outcome, old, new, reuse.outcome, server.desk.events.names

    outcome, old, new, reuse, names = run(story)

    assert (Redemption.ROTATED, 0, 1) == (outcome, old, new)
    assert Redemption.REUSE is reuse
    assert "refresh.tag_key_lost" not in names


def index_of(key_id):
    from kagimori.keys.documents import protection_index

    return protection_index(key_id)


def test_R12_a_lost_ring_key_logs_nobody_out_and_alarms():
    """
    B3: the tag key is gone; the current token refreshes, its retry too, and one alarm is told.
    """

    async def story(server):
        ring, text = server.desk.ring, await server.sign_in()
        ring.forget("key-1")
        first, retry = await server.redeem(text), await server.redeem(text)
        onward = await server.redeem(first.token.text)
        return first, retry, onward, server.desk.events.names

    first, retry, onward, names = run(story)

    assert Redemption.ROTATED is first.outcome is onward.outcome
    assert Redemption.REPLAYED is retry.outcome
    assert first.token.text == retry.token.text
    assert 1 == names.count("refresh.tag_key_lost")


def test_a_kept_token_moves_its_tag_key_too():
    """
    Families that never rotate follow the ring when their use is recorded.
    """

    async def live():
        async with Server(changed(CONFIDENTIAL, rotation=Rotation.NEVER)) as server:
            text = await server.sign_in()
            server.desk.ring.turn()
            kept = await server.after(LATER).redeem(text)
            return kept.outcome, kept.family.tag_key.protection_key

    assert (Redemption.KEPT, "key-2") == asyncio.run(live())


# --- opening -------------------------------------------------------------------------------


def test_R7_a_family_opened_for_an_earlier_epoch_is_never_made():
    """
    R7: a sign-out everywhere between sign-in and opening leaves nothing behind.
    """

    async def story(server):
        await server.set_user(epoch=1)
        with pytest.raises(InvalidTokenError):
            await server.sign_in(epoch=0)
        made = await server.spy.count(TENANT, "family")
        await server.sign_in(epoch=1)
        return made, await server.spy.count(TENANT, "family")

    assert (0, 1) == run(story)


@pytest.mark.parametrize("fields", [{"disabled": True}, None])
def test_no_family_is_opened_for_a_user_who_may_not_sign_in(fields):
    """
    A user disabled or removed meanwhile gets no family.
    """

    async def story(server):
        user = USER if fields else "u_unknown"
        if fields:
            await server.set_user(**fields)
        with pytest.raises(InvalidTokenError):
            await server.sign_in(user=user)
        return await server.spy.count(TENANT, "family")

    assert 0 == run(story)


def test_B7_max_families_evicts_the_oldest_used():
    """
    The 4th sign-in of 3 makes the least lately used one end, with an event.
    """

    async def live():
        async with Server(changed(PUBLIC, max_families=3)) as server:
            texts = []
            for _ in range(3):
                texts.append(await server.sign_in())
                server.after(SECOND)
            texts[0] = (await server.redeem(texts[0])).token.text
            phone = await server.sign_in(client="phone")
            await server.after(SECOND).sign_in()
            outcomes = [(await server.redeem(text)).outcome for text in texts]
            outcomes.append((await server.redeem(phone, client="phone")).outcome)
            return outcomes, server.desk.events.names.count("family.evicted")

    outcomes, evicted = asyncio.run(live())

    alive, gone = Redemption.ROTATED, Redemption.REVOKED
    assert [alive, gone, alive, alive] == outcomes
    assert 1 == evicted


def test_B7_a_bot_that_signs_in_forever_stays_bounded():
    """
    Seats and live families stay at the limit; families that expired by themselves leave too.
    """

    async def live():
        policy = changed(PUBLIC, max_families=2, idle_lifetime=timedelta(minutes=5))
        async with Server(policy) as server:
            seats = []
            for number in range(60):
                await server.sign_in()
                server.after(SECOND if number % 3 else LATER)
                index = ("seat", f"{USER}\n{CLIENT}")
                seats.append(await server.spy.count(TENANT, "family", index))
            return seats

    assert max(asyncio.run(live())) <= 3


def test_families_are_kept_for_a_month_after_their_end():
    """
    "Why was I signed out?" has an answer for 30 days; then the document goes.
    """

    async def story(server):
        text = await server.sign_in()
        family = RefreshToken.parse(text).family_id
        server.after(PUBLIC.idle_lifetime + RETENTION - SECOND)
        kept = await server.families.get_family(TENANT, family)
        reason = kept.end(server.clock.now()).reason
        server.after(SECOND)
        return reason, await server.families.get_family(TENANT, family)

    assert (EndReason.EXPIRED_IDLE, None) == run(story)


def test_a_revoked_family_goes_a_month_after_its_revocation():
    """
    What was ended early is not kept for the life that it would have had.
    """

    async def story(server):
        text = await server.sign_in()
        family = RefreshToken.parse(text).family_id
        await server.families.revocation.revoke_family(TENANT, family)
        server.after(RETENTION - SECOND)
        kept = await server.families.get_family(TENANT, family)
        server.after(SECOND)
        return kept.revoke_reason, await server.families.get_family(TENANT, family)

    assert (EndReason.OPERATOR, None) == run(story)


def test_R13_the_time_of_the_store_decides():
    """
    R13: a server whose own clock is wrong judges by the store's.
    """

    async def story(server):
        text = await server.sign_in()
        server.after(PUBLIC.idle_lifetime - SECOND)

        # `now` of the request is years off; only which seats to look at goes by it.
        class Wrong:
            @staticmethod
            def now():
                return server.clock.now() + timedelta(days=4000)

        await server.desk.open(Wrong, client="phone")
        return (await server.redeem(text)).outcome

    assert Redemption.ROTATED is run(story)


# --- the rest ------------------------------------------------------------------------------


def test_a_lost_race_decides_again():
    """
    B5, case 10: a writer that loses re-reads and finds itself in case 11.
    """

    class Losing(SpyStore):
        rival = None

        async def commit(self, tenant, changes):
            rival, self.rival = self.rival, None
            if rival is not None:
                await rival()
            return await super().commit(tenant, changes)

    async def live():
        clock = FixedClock()
        store = Losing(MemoryStore(clock))
        desk = Desk(store)
        await desk.add_user()
        text = (await desk.open(clock)).token.text
        won = []

        async def rival():
            won.append(await desk.redeem(text))

        store.rival = rival
        lost = await desk.redeem(text)
        return won[0], lost

    won, lost = asyncio.run(live())

    assert Redemption.ROTATED is won.outcome
    assert Redemption.REPLAYED is lost.outcome
    assert won.token.text == lost.token.text


def test_after_five_lost_races_the_caller_is_asked_to_retry():
    """
    B5, case 10: contention is no verdict on the token, which works afterwards.
    """

    class Refusing(SpyStore):
        refuses = False

        async def commit(self, tenant, changes):
            if self.refuses:
                raise ConflictError("somebody else")
            return await super().commit(tenant, changes)

    async def live():
        clock = FixedClock()
        store = Refusing(MemoryStore(clock))
        desk = Desk(store)
        await desk.add_user()
        text = (await desk.open(clock)).token.text
        store.refuses = True
        with pytest.raises(ContentionError) as caught:
            await desk.redeem(text)
        store.refuses = False
        return caught.value, (await desk.redeem(text)).outcome

    error, outcome = asyncio.run(live())

    assert error.transient
    assert Redemption.ROTATED is outcome


def test_a_retry_after_a_write_of_unknown_outcome_is_answered():
    """
    R11: the commit happened and the answer was lost on the way; the retry is a replay.
    """

    class Flaky(SpyStore):
        loses = False

        async def commit(self, tenant, changes):
            time = await super().commit(tenant, changes)
            if self.loses:
                self.loses = False
                raise StoreError("gone away", transient=True)
            return time

    async def live():
        clock = FixedClock()
        store = Flaky(MemoryStore(clock))
        desk = Desk(store)
        await desk.add_user()
        text = (await desk.open(clock)).token.text
        store.loses = True
        with pytest.raises(StoreError):
            await desk.redeem(text)
        return await desk.redeem(text)

    assert Redemption.REPLAYED is asyncio.run(live()).outcome


def test_inspecting_uses_nothing_up():
    """
    INT-3: looking at a token moves no deadline; only the current one of a live family is active.
    """

    async def story(server):
        old = await server.sign_in()
        new = (await server.redeem(old)).token.text
        server.spy.clear()
        looks = [
            await server.families.inspect_token(TENANT, text) for text in (old, new)
        ]
        writes = server.spy.times("commit")
        await server.set_user(disabled=True)
        looks.append(await server.families.inspect_token(TENANT, new))
        nothing = [
            await server.families.inspect_token(TENANT, text)
            for text in ("kgm_rt_", RefreshToken.make("A" * 22, 1, b"s" * 32, KEY).text)
        ]
        return [look.is_active for look in looks], writes, nothing

    assert ([False, True, False], 0, [None, None]) == run(story)


KEY = TagKey(b"k" * 32)


def test_families_are_listed_by_user_and_client():
    """
    B9: an operator finds the families of a user, of a client, and of both, over or not.
    """

    async def story(server):
        await server.desk.add_user("u_2")
        for user, client in ((USER, CLIENT), (USER, "phone"), ("u_2", CLIENT)):
            await server.sign_in(user=user, client=client)
        await server.families.revocation.revoke_client(TENANT, CLIENT)
        lists = [
            await server.families.list_families(TENANT, **fields)
            for fields in (
                {},
                {"user": USER},
                {"client": CLIENT},
                {"user": USER, "client": CLIENT},
            )
        ]
        page = await server.families.list_families(TENANT, limit=2)
        rest = await server.families.list_families(TENANT, after=page[-1].id)
        return [len(each) for each in lists], len(page), len(rest)

    assert ([3, 2, 2, 1], 2, 1) == run(story)


def test_B10_events_name_ids_and_nothing_secret():
    """
    B10: family, generation, client and user stand in an event; no token, hash, seal or key.
    """

    async def story(server):
        text = await server.sign_in()
        rotated = await server.redeem(text, seen=HOME)
        await server.redeem(text, seen=ELSEWHERE)
        await server.redeem(text, client="other")
        await server.redeem(text, scope=("admin",))
        await server.after(W).redeem(text, resource=MAIL)
        return text, rotated, server.desk.events

    text, rotated, events = run(story)

    assert [
        "refresh.rotated",
        "refresh.replayed",
        "refresh.replay_divergent",
        "refresh.foreign_client",
        "refresh.scope_widened",
        "refresh.reuse_detected",
    ] == events.names
    told = repr([(event, event.fields) for event in events])
    family = rotated.family
    assert family.id in told
    for secret in (
        text,
        rotated.token.text,
        family.current_hash.hex(),
        family.tag_key.text,
        msgspec.json.encode(family.current_hash).decode().strip('"'),
    ):
        assert secret not in told


def test_a_stored_family_holds_no_token():
    """
    B2, B4: neither a token nor its secret lies in the store, as text or decoded.
    """

    async def story(server):
        text = await server.sign_in()
        rotated = await server.redeem(text)
        document = (await server.spy.find(TENANT, "family"))[0]
        return (text, rotated.token.text), document.body, rotated.family

    texts, body, family = run(story)

    decoded = [
        value if isinstance(value, bytes) else repr(value).encode()
        for value in msgspec.structs.astuple(family)
    ]
    for text in texts:
        secret = RefreshToken.parse(text).to_bytes()[18:50]
        for held in (body, *decoded):
            assert text.encode() not in held
            assert text.encode()[7:] not in held
            assert secret not in held


def test_a_family_document_is_what_the_collection_reads():
    """
    The document is found by its id and decodes to the family that was answered.
    """

    async def story(server):
        text = await server.sign_in()
        verdict = await server.redeem(text)
        found = await FAMILIES.get(server.spy, TENANT, verdict.family.id)
        return verdict.family, found.value

    answered, stored = run(story)

    assert answered == stored
