"""
Random lives of a family, with a second, simpler account of what must happen beside it.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from kagimori.tokens.family import EndReason
from kagimori.tokens.policy import Rotation
from kagimori.tokens.records import FAMILIES
from kagimori.tokens.redemption import Redemption, TagKeys, UserStanding
from kagimori.tokens.refresh_token import TagKey
from tests.tokens.world import CONFIDENTIAL, NOWHERE, PUBLIC, Story, changed

POLICIES = [
    PUBLIC,
    CONFIDENTIAL,
    changed(PUBLIC, replay_window=timedelta()),
    changed(CONFIDENTIAL, rotation=Rotation.NEVER),
    changed(CONFIDENTIAL, rotation=Rotation.NEAR_EXPIRY),
    changed(PUBLIC, absolute_lifetime=timedelta(days=15)),
]
STEPS = [
    timedelta(milliseconds=1),
    timedelta(seconds=7),
    timedelta(seconds=29),
    timedelta(seconds=31),
    timedelta(minutes=3),
    timedelta(hours=23),
    timedelta(days=2),
    timedelta(days=10),
]


class FamilyMachine(RuleBasedStateMachine):
    """
    Presents all tokens that there ever were, in any order, at any time.
    """

    @initialize(policy=st.sampled_from(POLICIES))
    def begin(self, policy):
        self.story = Story(policy)
        self.retired = {}
        self.last_rotation = None
        self.last_use = self.story.now
        self.absolute = self.story.family.absolute_deadline
        self.is_successor_used = True
        self.is_over = False

    # --- what happens ----------------------------------------------------------------------

    @rule(step=st.sampled_from(STEPS))
    def time_passes(self, step):
        self.story.after(step)

    @rule(scope=st.sampled_from([None, ("read",), ("write",), ("read", "write")]))
    def current_is_used(self, scope):
        self.used(self.story.family.generation, scope=scope)

    @rule(data=st.data())
    def any_token_is_used(self, data):
        generation = data.draw(st.integers(1, self.story.family.generation))
        self.used(generation)

    @precondition(lambda self: self.story.family.generation > 1)
    @rule()
    def predecessor_is_used(self):
        self.used(self.story.family.generation - 1)

    @rule(data=st.data())
    def another_client_tries(self, data):
        generation = data.draw(st.integers(1, self.story.family.generation))
        self.harmless(self.story.tokens[generation], client="other")

    @rule(data=st.data())
    def somebody_guesses(self, data):
        generation = data.draw(st.integers(1, self.story.family.generation + 2))
        guess = self.story.token(generation, TagKey(secrets.token_bytes(32)))
        verdict = self.harmless(guess)
        assert verdict.outcome is Redemption.FORGED

    @rule()
    def the_store_is_older_than_a_token(self):
        self.harmless(self.story.token(self.story.family.generation + 1))

    @rule(scope=st.sampled_from([("admin",), ("read", "admin")]))
    def current_asks_for_more(self, scope):
        self.harmless(self.story.current, scope=scope)

    @rule()
    def the_tag_key_is_lost_and_current_is_used(self):
        new = TagKey(secrets.token_bytes(32))
        lost = TagKeys(None, new, self.story.sealed)
        before = self.story.family
        verdict = self.story.present(self.story.current, tag_keys=lost)
        self.follow(verdict, before, before.generation)
        if verdict.outcome is Redemption.ROTATED:
            self.story.tag_key = new

    @precondition(lambda self: not self.is_over)
    @rule(chance=st.integers(0, 9))
    def user_signs_out_everywhere(self, chance):
        if chance:
            return
        self.story.user = UserStanding(self.story.user.epoch + 1)

    @precondition(lambda self: not self.is_over)
    @rule(chance=st.integers(0, 9))
    def operator_revokes(self, chance):
        if chance:
            return
        story = self.story
        story.family = story.family.revoke(EndReason.OPERATOR, story.now)
        self.is_over = True

    # --- what must follow ------------------------------------------------------------------

    def harmless(self, token, **fields):
        before = self.story.family
        verdict = self.story.judge(token, **fields)
        assert not verdict.outcome.is_success
        # Only the end of the user's sign-ins may change anything here.
        if verdict.is_changed:
            assert self.story.user.epoch
            assert "client" not in fields
        else:
            assert verdict.family is before
        return verdict

    def used(self, generation, **fields):
        before = self.story.family
        expected = self.expected(generation)
        verdict = self.story.present(self.story.tokens[generation], **fields)
        assert verdict.outcome in expected, (verdict, expected)
        if verdict.outcome.is_success:
            assert set(verdict.scope) == set(fields.get("scope") or ("read", "write"))
        self.follow(verdict, before, generation)

    def expected(self, generation):
        """
        Say from the history alone what may come out.
        """
        story, policy = self.story, self.story.policy
        if self.is_over:
            return {Redemption.REVOKED}
        if story.now >= self.absolute:
            return {Redemption.EXPIRED_ABSOLUTE, Redemption.EXPIRED_IDLE}
        idle = story.now - self.last_use
        if idle >= policy.idle_lifetime:
            return {Redemption.EXPIRED_IDLE}
        current = story.family.generation
        signed_out = story.user.epoch > 0
        if generation == current:
            if signed_out:
                return {Redemption.REVOKED}
            if policy.rotation is Rotation.ALWAYS:
                return {Redemption.ROTATED}
            if policy.rotation is Rotation.NEVER:
                return {Redemption.KEPT}
            near = idle >= policy.idle_lifetime * 0.7
            return {Redemption.ROTATED if near else Redemption.KEPT}
        age = story.now - self.retired[generation]
        in_window = age < policy.replay_window
        until_used = policy.replay_until_used and age < timedelta(hours=24)
        is_replay = generation == current - 1 and not self.is_successor_used
        if is_replay and (in_window or until_used):
            return {Redemption.REVOKED if signed_out else Redemption.REPLAYED}
        # Beyond 32 generations nobody knows when it was; then it is reuse (R15).
        if in_window and current - generation <= 32:
            return {Redemption.STALE}
        return {Redemption.REUSE}

    def follow(self, verdict, before, generation):
        after, story = verdict.family, self.story
        match verdict.outcome:
            case Redemption.ROTATED:
                assert after.generation == before.generation + 1
                self.retired[generation] = story.now
                self.is_successor_used = False
                self.last_use = story.now
            case Redemption.KEPT:
                assert after.generation == before.generation
                assert verdict.token.text == story.tokens[generation].text
                self.is_successor_used = True
                if verdict.is_changed:
                    self.last_use = story.now
            case Redemption.REPLAYED:
                assert after is before
                assert not verdict.is_changed
                assert verdict.token.text == story.tokens[generation + 1].text
            case _:
                assert verdict.token is None
                ends = verdict.outcome is Redemption.REUSE or (
                    verdict.outcome is Redemption.REVOKED and not self.is_over
                )
                assert verdict.is_changed == ends
                assert verdict.is_changed == (after.revoked_at != before.revoked_at)
                self.is_over = self.is_over or verdict.is_changed

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def deadlines_hold(self):
        family = self.story.family
        assert family.absolute_deadline == self.absolute
        assert family.idle_deadline <= self.absolute
        expected = min(self.last_use + self.story.policy.idle_lifetime, self.absolute)
        assert family.idle_deadline == expected

    @invariant()
    def revoked_stays_revoked(self):
        assert self.is_over == (self.story.family.revoked_at is not None)

    @invariant()
    def one_token_is_current(self):
        family, story = self.story.family, self.story
        honoured = [
            generation
            for generation, token in story.tokens.items()
            if story.judge(token).outcome in {Redemption.ROTATED, Redemption.KEPT}
        ]
        assert honoured in ([], [family.generation])

    @invariant()
    def it_stays_small(self):
        assert len(FAMILIES.put("x", self.story.family, 0).body) < 2300

    @invariant()
    def grants_never_erode(self):
        assert self.story.family.scope == ("read", "write")
        assert self.story.family.last_seen == NOWHERE


TestFamilyMachine = FamilyMachine.TestCase
TestFamilyMachine.settings = settings(
    settings.get_profile("test"),
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
