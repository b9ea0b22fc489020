"""
The races of requirements B6, each with fifty real threads from one barrier.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from kagimori.tokens.denied import is_denied
from kagimori.tokens.family import EndReason
from kagimori.tokens.redemption import Redemption
from kagimori.tokens.refresh_token import RefreshToken, TagKey
from tests.tokens.races.arena import HERD, ROUNDS, herd, outcomes, race, texts
from tests.tokens.world import (
    CLIENT,
    CONFIDENTIAL,
    PUBLIC,
    SECOND,
    TENANT,
    USER,
    W,
    changed,
)

EAGER = changed(PUBLIC, max_families=900)


def test_R1_a_herd_with_one_token_gets_one_successor(arena):
    """
    R1: all 200, the same refresh token, exactly one generation added; some lost the race.
    """
    place = arena()
    for _ in range(ROUNDS):
        text, before = place.sign_in(), place.store.conflicts
        verdicts = herd(place, text)

        assert 1 == len(texts(verdicts))
        assert {"ROTATED": 1, "REPLAYED": HERD - 1} == Counter(outcomes(verdicts))
        assert 2 == place.family(text).generation
        if place.store.conflicts > before:
            break
    assert place.store.conflicts


def test_R2_lost_answers_are_answered_again_until_W(arena):
    """
    R2: after 1 s and 29 s all get the same successor; at W the family dies, once.
    """
    place = arena()
    text = place.sign_in()
    first = place.redeem(text).token.text

    early = herd(place.after(SECOND), text)
    late = herd(place.after(28 * SECOND), text)
    gone = herd(place.after(SECOND), text)

    assert {first} == texts(early) == texts(late)
    assert {"REUSE": 1, "REVOKED": HERD - 1} == Counter(outcomes(gone))
    assert ["REVOKED"] * HERD == outcomes(herd(place, first))


def test_R3_a_retry_after_30_seconds_is_answered_until_the_successor_is_used(arena):
    """
    R3: replay_until_used serves the conformance suite's wait, and ends with the first use.
    """
    place = arena(policy=CONFIDENTIAL)
    text = place.sign_in()
    first = place.redeem(text).token.text

    retries = herd(place.after(31 * SECOND), text)
    place.redeem(first)
    used = herd(place.after(31 * SECOND), text)

    assert {first} == texts(retries)
    assert {"REUSE": 1, "REVOKED": HERD - 1} == Counter(outcomes(used))


def test_R4_workers_that_never_store_the_successor_are_revoked_once(arena):
    """
    R4: N workers share one token beyond W: one revocation and one event, not N.
    """
    place = arena()
    text = place.sign_in()
    desks = [place.new_desk() for _ in range(HERD)]
    seen = []
    for _ in range(4):
        seen.append(race([lambda desk=desk: desk.redeem(text) for desk in desks]))
        place.after(20 * SECOND)

    events = Counter(name for desk in desks for name in desk.events.names)
    assert ["REPLAYED"] * HERD == outcomes(seen[1])
    assert 1 == len(texts(seen[0] + seen[1]))
    assert {"REUSE": 1, "REVOKED": HERD - 1} == Counter(outcomes(seen[2]))
    assert ["REVOKED"] * HERD == outcomes(seen[3])
    assert 1 == events["refresh.reuse_detected"]


def test_R5_a_thief_and_the_owner_end_in_reuse_at_the_first_gap(arena):
    """
    R5: both hold R1 and get the same R2, whoever is second; outside W the second one kills.
    """
    place = arena()
    text = place.sign_in()
    for _ in range(3):
        both = herd(place, text)
        assert 1 == len(texts(both))
        assert 1 == outcomes(both).count("ROTATED")
        (text,) = texts(both)
        place.after(SECOND)

    owner = place.redeem(text)
    thief = herd(place.after(W), text)

    assert Redemption.ROTATED is owner.outcome
    assert {"REUSE": 1, "REVOKED": HERD - 1} == Counter(outcomes(thief))
    assert Redemption.REVOKED is place.redeem(owner.token.text).outcome


def test_R6_replays_lengthen_nothing(arena):
    """
    R6: fifty replaying every 2 s for 5 min end in reuse, and moved no deadline.
    """
    place = arena()
    text = place.sign_in()
    first = place.redeem(text).family
    tally = [Counter(outcomes(herd(place.after(2 * SECOND), text))) for _ in range(17)]

    assert [{"REPLAYED": HERD}] * 14 == tally[:14]
    assert {"REUSE": 1, "REVOKED": HERD - 1} == tally[14]
    assert [{"REVOKED": HERD}] * 2 == tally[15:]
    place.after(timedelta(minutes=4.5))
    assert first.idle_deadline == place.family(text).idle_deadline
    assert Redemption.REVOKED is place.redeem(text).outcome


# --- R7 ------------------------------------------------------------------------------------


async def keep_refreshing(desk, text, held):
    """
    Use what was got last until it is refused; keep all that was ever got.
    """
    for _ in range(40):
        verdict = await desk.redeem(text)
        if verdict.token is None:
            return verdict.outcome
        text = verdict.token.text
        held.append(text)
    return None


def revoked_while_refreshing(place, revoke):
    """
    Let a herd refresh one family while it is revoked; return how far it had come.
    """
    text, held = place.sign_in(), []
    desks = [place.new_desk() for _ in range(HERD - 1)]
    refreshers = [lambda desk=desk: keep_refreshing(desk, text, held) for desk in desks]

    async def revoker():
        desk = place.new_desk()
        # Not before the first of them has got somewhere.
        for _ in range(200):
            if held:
                break
            await desk.families.get_family(TENANT, "none")
        await revoke(desk.families.revocation, text)
        return len(held)

    results = race([revoker, *refreshers])
    family = place.family(text)
    assert family.revoked_at is not None
    # Who fell behind the others by a generation is refused as stale before that.
    assert {Redemption.REVOKED, Redemption.STALE, None} >= set(results[1:])
    for each in {text, *held}:
        assert Redemption.REVOKED is place.redeem(each).outcome
    denied = is_denied(place.store, TENANT, jti="any", family_id=family.id)
    assert place.run(denied)
    return results[0], len(held)


def racing_revocations(place, revoke):
    """
    Repeat until refreshes have won against the revocation, and one side has lost a commit.
    """
    for _ in range(ROUNDS):
        before = place.store.conflicts
        overtaken, refreshed = revoked_while_refreshing(place, revoke)
        if overtaken and refreshed and place.store.conflicts > before:
            return
    raise AssertionError("no refresh ever raced with the revocation")


def test_R7_revoking_a_family_wins_over_refreshes(arena):
    """
    R7: after the revocation has returned no token works, one minted by a racing refresh neither.
    """

    async def revoke(revocation, text):
        family = RefreshToken.parse(text).family_id
        assert await revocation.revoke_family(TENANT, family)

    racing_revocations(arena(policy=EAGER), revoke)


def test_R7_revoking_by_token_wins_over_refreshes(arena):
    """
    R7, REV-4: the same by RFC 7009, with a token that was replaced meanwhile.
    """

    async def revoke(revocation, text):
        assert await revocation.revoke_token(TENANT, text, client=CLIENT)

    racing_revocations(arena(policy=EAGER), revoke)


def test_R7_revoking_a_client_wins_over_refreshes(arena):
    """
    R7: the same for all families of a client.
    """

    async def revoke(revocation, text):
        await revocation.revoke_client(TENANT, CLIENT)

    racing_revocations(arena(policy=EAGER), revoke)


def test_R7_revoking_a_user_leaves_no_family_behind(arena):
    """
    R7: sign-ins and refreshes race with a sign-out everywhere; nothing of before it works.
    """
    born_dead = 0
    for _ in range(ROUNDS):
        place = arena(policy=EAGER)
        held = [place.sign_in() for _ in range(5)]

        async def sign_in(desk, place=place, held=held):
            try:
                opened = await desk.open(place.clock)
            except Exception as error:  # noqa: BLE001 - which one is asserted below
                return error
            held.append(opened.token.text)
            return await keep_refreshing(desk, opened.token.text, held)

        async def sign_out(desk, place=place):
            for _ in range(20):
                await desk.families.get_family(TENANT, "none")
            await desk.families.revocation.revoke_user(TENANT, USER)

        desks = [place.new_desk() for _ in range(HERD)]
        results = race(
            [lambda desk=desk: sign_in(desk) for desk in desks[1:]]
            + [lambda desk=desks[0]: sign_out(desk)]
        )

        refused = [each for each in results if isinstance(each, Exception)]
        assert {"InvalidTokenError"} >= {type(each).__name__ for each in refused}
        born_dead += len(refused)
        listed = place.desk.families.list_families(TENANT, user=USER, limit=1000)
        assert all(family.revoked_at for family in place.run(listed))
        for text in held:
            assert Redemption.REVOKED is place.redeem(text).outcome
        if born_dead and len(held) > 5:
            return
    raise AssertionError("no sign-in ever lost against the sign-out")


# --- the rest ------------------------------------------------------------------------------


def test_R8_two_clients_of_a_user_do_not_hinder_each_other(arena):
    """
    R8: refreshes of independent families are all 200, and no commit is lost.
    """
    place = arena(policy=EAGER)
    clients = [CLIENT if number % 2 else "phone" for number in range(HERD)]
    tokens = [place.sign_in(client=client) for client in clients]
    before = place.store.conflicts

    desks = [place.new_desk() for _ in range(HERD)]
    verdicts = race(
        [
            lambda desk=desk, text=text, client=client: desk.redeem(text, client=client)
            for desk, text, client in zip(desks, tokens, clients, strict=True)
        ]
    )

    assert ["ROTATED"] * HERD == outcomes(verdicts)
    assert HERD == len(texts(verdicts))
    assert before == place.store.conflicts


def test_R9_racing_with_narrow_scopes_erodes_nothing(arena):
    """
    R9: each racer gets the scope it asked for; the next refresh the full one.
    """
    place = arena()
    text = place.sign_in()
    asked = [(None, ("read",), ("write",))[number % 3] for number in range(HERD)]

    desks = [place.new_desk() for _ in range(HERD)]
    verdicts = race(
        [
            lambda desk=desk, scope=scope: desk.redeem(text, scope=scope)
            for desk, scope in zip(desks, asked, strict=True)
        ]
    )
    (successor,) = texts(verdicts)

    assert [scope or ("read", "write") for scope in asked] == [
        verdict.scope for verdict in verdicts
    ]
    assert ("read", "write") == place.redeem(successor).scope


def test_R10_an_older_token_within_W_is_stale_beside_live_refreshes(arena):
    """
    R10: R1, R2, R3 within W; R1 from all sides is refused while R3 goes on working.
    """
    place = arena()
    first = place.sign_in()
    second = place.redeem(first).token.text
    third = place.redeem(second).token.text

    desks = [place.new_desk() for _ in range(HERD)]
    shown = [third if number % 5 == 0 else first for number in range(HERD)]
    verdicts = race(
        [
            lambda desk=desk, text=text: desk.redeem(text)
            for desk, text in zip(desks, shown, strict=True)
        ]
    )

    assert {"STALE": 40, "ROTATED": 1, "REPLAYED": 9} == Counter(outcomes(verdicts))
    assert Redemption.ROTATED is place.redeem(*texts(verdicts)).outcome


def test_R12_the_ring_turns_and_loses_keys_while_clients_refresh(arena):
    """
    R12: turns and even the loss of the protecting key between and during refreshes: all 200.
    """
    place = arena(policy=EAGER)
    tokens = [place.sign_in() for _ in range(HERD)]
    for step in range(6):

        async def turn(step=step):
            if step % 3 == 2:
                place.ring.forget(place.ring.current)
            else:
                place.ring.turn()

        desks = [place.new_desk() for _ in range(HERD)]
        verdicts = race(
            [
                lambda desk=desk, text=text: desk.redeem(text)
                for desk, text in zip(desks, tokens, strict=True)
            ]
            + [turn]
        )[:-1]

        assert ["ROTATED"] * HERD == outcomes(verdicts)
        tokens = [verdict.token.text for verdict in verdicts]
        place.after(timedelta(hours=1))


def test_R15_pruned_generations_are_reuse_and_forged_ones_are_nothing(arena):
    """
    R15: fifty forge a pruned generation and the family lives; fifty present the real one: dead.
    """
    place = arena()
    old = text = place.sign_in()
    for _ in range(40):
        text = place.redeem(text).token.text
    place.after(timedelta(hours=1))
    family = RefreshToken.parse(old).family_id
    forged = RefreshToken.make(family, 1, b"s" * 32, TagKey(b"k" * 32)).text

    guesses = herd(place, forged)
    text = place.redeem(text).token.text
    reuse = herd(place, old)

    assert ["FORGED"] * HERD == outcomes(guesses)
    assert {"REUSE": 1, "REVOKED": HERD - 1} == Counter(outcomes(reuse))
    ended = place.redeem(text)
    assert EndReason.REUSE is ended.family.revoke_reason
