from __future__ import annotations

import secrets
from datetime import timedelta

import msgspec
import pytest

from kagimori.tokens.family import EndReason
from kagimori.tokens.policy import OnReuse, Rotation
from kagimori.tokens.redeem import redeem
from kagimori.tokens.redemption import Redemption, TagKeys, UserStanding
from kagimori.tokens.refresh_token import RefreshToken, TagKey
from tests.tokens.world import (
    API,
    CONFIDENTIAL,
    ELSEWHERE,
    HOME,
    MAIL,
    PUBLIC,
    SECOND,
    TICK,
    Story,
    W,
    changed,
    fresh,
)

LATER = timedelta(hours=1)
NEVER = changed(CONFIDENTIAL, rotation=Rotation.NEVER)
NEAR = changed(CONFIDENTIAL, rotation=Rotation.NEAR_EXPIRY)
STRICT = changed(PUBLIC, replay_window=timedelta())
LENIENT = changed(CONFIDENTIAL, on_reuse=OnReuse.REJECT_ONLY)


def first_use():
    """
    Return a family whose first token has not been used, and that token.
    """
    story = Story()
    return story, story.current


def retired(times=1, age=LATER, policy=PUBLIC):
    """
    Return a family that rotated, and its first token, retired for `age`.
    """
    story = Story(policy)
    story.rotate(times, every=timedelta())
    return story.after(age), story.tokens[1]


# Each story: the case of B5, what it is called, how it comes about, the outcome, and whether
# the family is over, changed, or as before afterwards.
STORIES = [
    (1, "a tag that we never made", "FORGED", "same"),
    (1, "a tag under another family's key", "FORGED", "same"),
    (2, "the current token of a revoked family", "REVOKED", "same"),
    (2, "a retired token of a revoked family", "REVOKED", "same"),
    (3, "another client's current token", "FOREIGN", "same"),
    (3, "another client's retired token", "FOREIGN", "same"),
    (4, "used a moment before the idle deadline", "ROTATED", "changed"),
    (4, "used at the idle deadline", "EXPIRED_IDLE", "same"),
    (4, "used at the absolute deadline", "EXPIRED_ABSOLUTE", "same"),
    (4, "a retired token after the idle deadline", "EXPIRED_IDLE", "same"),
    (6, "a scope that was not granted", "SCOPE_WIDENED", "same"),
    (6, "a resource that was not granted", "TARGET_WIDENED", "same"),
    (6, "a scope that the client lost since", "SCOPE_WIDENED", "same"),
    (6, "a resource that the client lost since", "TARGET_WIDENED", "same"),
    (7, "the user is disabled", "REVOKED", "over"),
    (7, "the user is gone", "REVOKED", "over"),
    (7, "the user signed out everywhere", "REVOKED", "over"),
    (7, "the client was revoked", "REVOKED", "over"),
    (8, "policy never rotates", "KEPT", "changed"),
    (8, "policy rotates near expiry only", "KEPT", "changed"),
    (8, "used again within the minute", "KEPT", "same"),
    (9, "policy rotates always", "ROTATED", "changed"),
    (9, "near expiry comes at 70 percent", "ROTATED", "changed"),
    (11, "the predecessor within W", "REPLAYED", "same"),
    (11, "the predecessor within 24 h until used", "REPLAYED", "same"),
    (11, "the predecessor after K replays", "THROTTLED", "same"),
    (11, "a replay that widens the scope", "SCOPE_WIDENED", "same"),
    (11, "a replay of a disabled user", "REVOKED", "over"),
    (12, "a skipped generation within W", "STALE", "same"),
    (12, "a kept successor was used, within W", "STALE", "same"),
    (13, "the predecessor at W", "REUSE", "over"),
    (13, "a skipped generation at W", "REUSE", "over"),
    (13, "the predecessor under strict one-time use", "REUSE", "over"),
    (13, "a kept successor was used, after W", "REUSE", "over"),
    (13, "the predecessor after 24 h until used", "REUSE", "over"),
    (13, "reuse asking for odd scopes", "REUSE", "over"),
    (13, "reuse of a disabled user", "REUSE", "over"),
    (13, "policy only rejects", "REUSE", "same"),
    (14, "a generation that is not there yet", "AHEAD", "same"),
    (14, "another current token", "AHEAD", "same"),
    (14, "another predecessor", "AHEAD", "same"),
]


def tell(name):  # noqa: C901, PLR0912 - one branch for each story
    """
    Return the family, the token and what is particular of the request.
    """
    match name:
        case "a tag that we never made" | "a tag under another family's key":
            story, _ = first_use()
            return story, story.token(1, TagKey(secrets.token_bytes(32))), {}
        case "the current token of a revoked family":
            story, token = first_use()
            story.family = story.family.revoke(EndReason.OPERATOR, story.now)
            return story, token, {"scope": ("odd",), "client": "other", "user": None}
        case "a retired token of a revoked family":
            story, token = retired()
            story.family = story.family.revoke(EndReason.OPERATOR, story.now)
            return story, token, {}
        case "another client's current token":
            return *first_use(), {"client": "other", "scope": ("odd",)}
        case "another client's retired token":
            return *retired(), {"client": "other"}
        case "used a moment before the idle deadline":
            story, token = first_use()
            return story.after(PUBLIC.idle_lifetime - TICK), token, {}
        case "used at the idle deadline":
            story, token = first_use()
            return story.after(PUBLIC.idle_lifetime), token, {"scope": ("odd",)}
        case "used at the absolute deadline":
            story = Story(changed(PUBLIC, idle_lifetime=PUBLIC.absolute_lifetime))
            return story.after(PUBLIC.absolute_lifetime), story.current, {}
        case "a retired token after the idle deadline":
            return *retired(age=PUBLIC.idle_lifetime), {}
        case "a scope that was not granted":
            return *first_use(), {"scope": ("read", "admin"), "user": None}
        case "a resource that was not granted":
            return *first_use(), {"resource": "urn:example:other", "user": None}
        case "a scope that the client lost since":
            lost = {"permitted_scope": frozenset({"read"})}
            return *first_use(), {"scope": ("write",)} | lost
        case "a resource that the client lost since":
            lost = {"permitted_resources": frozenset({MAIL})}
            return *first_use(), {"resource": API} | lost
        case "the user is disabled":
            return *first_use(), {"user": UserStanding(0, disabled=True)}
        case "the user is gone":
            return *first_use(), {"user": None}
        case "the user signed out everywhere":
            return *first_use(), {"user": UserStanding(1)}
        case "the client was revoked":
            return *first_use(), {"client_epoch": 1}
        case "policy never rotates":
            story = Story(NEVER)
            return story.after(NEVER.touch_granularity), story.current, {}
        case "policy rotates near expiry only":
            story = Story(NEAR)
            return story.after(NEAR.idle_lifetime * 0.7 - SECOND), story.current, {}
        case "used again within the minute":
            story = Story(NEVER)
            return story.after(NEVER.touch_granularity - TICK), story.current, {}
        case "policy rotates always":
            return *first_use(), {}
        case "near expiry comes at 70 percent":
            story = Story(NEAR)
            return story.after(NEAR.idle_lifetime * 0.7), story.current, {}
        case "the predecessor within W":
            return *retired(age=W - TICK), {}
        case "the predecessor within 24 h until used":
            age = timedelta(hours=24) - TICK
            return *retired(age=age, policy=CONFIDENTIAL), {}
        case "the predecessor after K replays":
            return *retired(age=SECOND), {"replays": PUBLIC.replay_limit}
        case "a replay that widens the scope":
            return *retired(age=SECOND), {"scope": ("admin",)}
        case "a replay of a disabled user":
            return *retired(age=SECOND), {"user": UserStanding(0, disabled=True)}
        case "a skipped generation within W":
            return *retired(2, age=W - TICK), {"scope": ("odd",)}
        case "a kept successor was used, within W":
            return *kept_and_used(age=W - TICK), {}
        case "the predecessor at W":
            return *retired(age=W), {}
        case "a skipped generation at W":
            return *retired(2, age=W), {}
        case "the predecessor under strict one-time use":
            return *retired(age=timedelta(), policy=STRICT), {}
        case "a kept successor was used, after W":
            return *kept_and_used(age=W), {}
        case "the predecessor after 24 h until used":
            return *retired(age=timedelta(hours=24), policy=CONFIDENTIAL), {}
        case "reuse asking for odd scopes":
            return *retired(), {"scope": ("odd",), "resource": "urn:example:odd"}
        case "reuse of a disabled user":
            return *retired(), {"user": UserStanding(0, disabled=True)}
        case "policy only rejects":
            return *retired(2, policy=LENIENT), {}
        case "a generation that is not there yet":
            story, _ = first_use()
            return story, story.token(2), {}
        case "another current token":
            story, _ = first_use()
            return story, story.token(1), {}
        case "another predecessor":
            story, _ = retired(age=SECOND)
            return story, story.token(1), {"scope": ("odd",)}
    raise AssertionError(name)


def kept_and_used(age):
    """
    Return a family that rotated near expiry and used the new token, and the one before.
    """
    story = Story(NEAR)
    story.after(NEAR.idle_lifetime * 0.7).rotate(every=timedelta())
    kept = story.present()
    assert kept.outcome is Redemption.KEPT
    return story.after(age), story.tokens[1]


@pytest.mark.parametrize(
    ("case", "name", "outcome", "family"),
    STORIES,
    ids=[f"case {s[0]} {s[1]}" for s in STORIES],
)
def test_B5_verdict(case, name, outcome, family):
    """
    Every case of the state machine gives its outcome, and changes the family as it says.
    """
    story, token, fields = tell(name)
    before = story.family

    verdict = story.present(token, **fields)

    assert Redemption[outcome] is verdict.outcome
    assert (family != "same") == verdict.is_changed == (verdict.family is not before)
    if family == "over":
        assert verdict.family.revoked_at == story.now
        assert verdict.family.sealed_successor is None
    if not verdict.outcome.is_success:
        assert verdict.token is None
        assert verdict.reason


def test_every_case_of_B5_is_told():
    """
    The table leaves out only what needs a binding (5) and what the commit loop does (10).
    """
    told = {story[0] for story in STORIES}

    assert set(range(1, 15)) - {5, 10} == told


# --- what a success gives ------------------------------------------------------------------


def test_a_rotation_gives_the_next_generation_and_moves_the_idle_deadline():
    """
    Case 9: one more generation, a new token, and a deadline counted from this use.
    """
    story, token = first_use()
    story.after(LATER)

    verdict = story.present(token)

    family = verdict.family
    assert (2, 2) == (family.generation, verdict.token.generation)
    assert token.text != verdict.token.text
    assert family.knows(verdict.token)
    assert family.idle_deadline == story.now + PUBLIC.idle_lifetime


def test_a_replay_gives_the_same_successor_and_moves_nothing():
    """
    Case 11: the token that the first answer held, and a family that stays as it was.
    """
    story, token = first_use()
    answered = story.present(token)
    before = story.family
    story.after(W - TICK)

    again = story.present(token)

    assert answered.token.text == again.token.text
    assert before is again.family


def test_a_kept_token_stays_and_its_deadline_moves():
    """
    Case 8: the same text again; at most once a minute there is something to write.
    """
    story = Story(NEVER)
    token = story.current
    story.after(LATER)

    verdict = story.present(token)

    assert token.text == verdict.token.text
    assert verdict.family.idle_deadline == story.now + NEVER.idle_lifetime


def test_first_use_of_a_kept_successor_erases_the_seal():
    """
    B4: under near_expiry the sealed successor is gone once it has reached its client.
    """
    story = Story(NEAR)
    story.after(NEAR.idle_lifetime * 0.7)
    rotated = story.present()

    used = story.present()

    assert rotated.family.sealed_successor is not None
    assert used.family.sealed_successor is None
    assert used.family.successor_used_at == story.now


def test_R9_narrowed_scope_never_erodes():
    """
    R9: a narrowed refresh narrows one access token; the next gets all that was granted.
    """
    story, _ = first_use()

    narrow = story.present(scope=("read",))
    full = story.present()

    assert ("read",) == narrow.scope
    assert ("read", "write") == full.scope


def test_another_granted_resource_gets_its_own_token():
    """
    The first granted resource is the default; another is had for the asking.
    """
    story, _ = first_use()

    default, asked = story.present(), story.present(resource=MAIL)

    assert (API, MAIL) == (default.resource, asked.resource)


def test_T6_what_the_client_lost_is_not_granted():
    """
    T6: scope and resource that the client may no longer have are left out of the default.
    """
    story, _ = first_use()

    verdict = story.present(
        permitted_scope=frozenset({"write"}), permitted_resources=frozenset({MAIL})
    )

    assert (("write",), MAIL) == (verdict.scope, verdict.resource)


def test_T6_no_resource_left_is_refused():
    """
    T6: where every granted resource is gone, there is no audience to issue for.
    """
    story, _ = first_use()

    verdict = story.judge(story.current, permitted_resources=frozenset())

    assert Redemption.TARGET_WIDENED is verdict.outcome


def test_a_family_without_resources_takes_none():
    """
    A resource cannot be asked for where none was granted; without one it works.
    """
    story = Story(resources=())

    refused = story.judge(story.current, resource=API)
    accepted = story.judge(story.current)

    assert Redemption.TARGET_WIDENED is refused.outcome
    assert Redemption.ROTATED is accepted.outcome
    assert accepted.resource is None


def test_R5_a_replay_from_elsewhere_is_marked():
    """
    R5: a replay from another address with another agent than the rotation stands out.
    """
    story, token = first_use()
    story.present(token, seen=HOME)

    near, far = story.judge(token, seen=HOME), story.judge(token, seen=ELSEWHERE)

    assert Redemption.REPLAYED is near.outcome is far.outcome
    assert (False, True) == (near.is_divergent, far.is_divergent)


# --- the tag key ---------------------------------------------------------------------------


def without_tag_key(story):
    """
    Return what a request has when the ring cannot unprotect the family's tag key.
    """
    new = TagKey(secrets.token_bytes(32))
    return TagKeys(None, new, story.sealed), new


def test_a_lost_tag_key_logs_nobody_out():
    """
    B3: the current token is honoured by its hash, and the next is tagged by a new key.
    """
    story, token = first_use()
    keys, new = without_tag_key(story)

    verdict = story.present(token, tag_keys=keys)

    assert Redemption.ROTATED is verdict.outcome
    assert verdict.lost_tag_key
    assert verdict.token.is_tagged_by(new)
    assert not verdict.token.is_tagged_by(story.tag_key)


def test_a_retry_across_a_lost_tag_key_gets_the_same_successor():
    """
    B3, R11: the predecessor's tag is of the old key, and its hash still counts.
    """
    story, token = first_use()
    keys, new = without_tag_key(story)
    answered = story.present(token, tag_keys=keys)
    story.tag_key = new

    again = story.present(token)

    assert Redemption.REPLAYED is again.outcome
    assert answered.token.text == again.token.text


def test_a_lost_tag_key_leaves_forgery_impossible():
    """
    Without a tag key, a token that no kept hash proves is refused without side effect.
    """
    story, _ = first_use()
    keys, _ = without_tag_key(story)
    forged = story.token(1)

    verdict = story.present(forged, tag_keys=keys)

    assert Redemption.FORGED is verdict.outcome
    assert not verdict.is_changed


def test_reuse_within_the_history_is_caught_without_the_tag_key():
    """
    The hashes of the last 32 generations still prove reuse when the tag key is lost.
    """
    story = Story().rotate(5)
    story.after(LATER)
    keys, _ = without_tag_key(story)

    verdict = story.present(story.tokens[2], tag_keys=keys)

    assert Redemption.REUSE is verdict.outcome


def test_R15_a_pruned_generation_is_still_reuse():
    """
    R15: far beyond the history the tag alone proves that the token was ours.
    """
    story = Story().rotate(60)
    story.after(LATER)

    assert story.family.retired_at(2) is None
    assert Redemption.REUSE is story.present(story.tokens[2]).outcome


def test_R15_a_forged_old_generation_leaves_the_family_alive():
    """
    R15: the same generation with a bad tag is case 1, and the next refresh works.
    """
    story = Story().rotate(60)
    forged = story.token(2, TagKey(secrets.token_bytes(32)))

    assert Redemption.FORGED is story.present(forged).outcome
    assert Redemption.ROTATED is story.present().outcome


# --- time ----------------------------------------------------------------------------------


def test_R13_a_clock_that_steps_back_expires_and_accuses_nobody():
    """
    R13: five minutes back, the current token rotates and the predecessor is a replay.
    """
    story = Story().rotate()
    story.after(timedelta(minutes=-5))

    replay = story.judge(story.tokens[1])
    rotated = story.judge(story.current)

    assert Redemption.REPLAYED is replay.outcome
    assert Redemption.ROTATED is rotated.outcome


def test_R13_a_clock_that_steps_back_opens_no_strict_window():
    """
    With W = 0 a predecessor is never replayed, whatever the clock does.
    """
    story = Story(STRICT).rotate()
    story.after(timedelta(minutes=-5))

    assert Redemption.REUSE is story.judge(story.tokens[1]).outcome


def test_R6_replaying_does_not_lengthen_the_window():
    """
    R6: a replay every 2 s for 5 min ends in reuse once W has passed.
    """
    story, token = first_use()
    story.present(token)
    outcomes = []
    for _ in range(150):
        story.after(timedelta(seconds=2))
        outcomes.append(story.present(token).outcome)

    assert [Redemption.REPLAYED] * 14 == outcomes[:14]
    assert Redemption.REUSE is outcomes[14]
    assert {Redemption.REVOKED} == set(outcomes[15:])


@pytest.mark.parametrize("seconds", [1, 29])
def test_R2_a_lost_answer_is_answered_again(seconds):
    """
    R2: a retry after 1 s or 29 s gets the same successor.
    """
    story, token = first_use()
    answered = story.present(token)
    story.after(timedelta(seconds=seconds))

    again = story.present(token)

    assert answered.token.text == again.token.text


def test_R3_a_retry_after_the_wait_of_fapi_is_answered():
    """
    R3: under replay_until_used 30 s later is early enough, unless the successor was used.
    """
    story, token = retired(age=timedelta(seconds=31), policy=CONFIDENTIAL)

    retry = story.present(token)
    story.present(retry.token)
    used = story.after(timedelta(seconds=31)).present(token)

    assert Redemption.REPLAYED is retry.outcome
    assert Redemption.REUSE is used.outcome


def test_R10_an_older_token_within_W_is_stale_and_the_family_lives():
    """
    R10: R1, R2, R3 within W, then R1 again: refused, and R3 goes on working.
    """
    story = Story().rotate(2)

    stale = story.present(story.tokens[1])
    alive = story.present()

    assert Redemption.STALE is stale.outcome
    assert Redemption.ROTATED is alive.outcome


def test_a_damaged_seal_refuses_and_accuses_nobody():
    """
    Where the stored seal does not open, the retry is refused and the family lives.
    """
    story, token = first_use()
    story.present(token)
    sealed = story.family.sealed_successor
    story.family = msgspec.structs.replace(
        story.family, sealed_successor=sealed[:-1] + bytes((sealed[-1] ^ 1,))
    )

    assert Redemption.STALE is story.present(token).outcome
    assert Redemption.ROTATED is story.present(story.tokens[2]).outcome


def test_deciding_twice_gives_the_same_answer():
    """
    The rule is pure: the commit loop may ask it again with the same randomness.
    """
    story, token = first_use()
    request = story.request(RefreshToken.parse(token.text), randomness=fresh())
    once, twice = (redeem(story.family, request, story.now) for _ in range(2))

    assert once.token.text == twice.token.text
    assert once.family == twice.family
