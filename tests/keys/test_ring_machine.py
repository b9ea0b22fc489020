"""
Random verbs and clock moves on a ring, with what must hold after each of them.

Tokens are modelled as (key, end). Whatever happens, a living token's key stays published,
unless the key was revoked or deleted by force.
"""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kagimori.errors import KagimoriError
from kagimori.keys.ledger import LedgerDocument, last_expiries, live_tokens, minute_end
from kagimori.keys.policy import RotationPolicy
from kagimori.keys.ring import KeyRing, LiveTokens
from kagimori.keys.schedule import successor_activates, wanting_successor
from kagimori.keys.timeline import KeyState, KeyUse
from tests.keys.stories import COOKIE, DAY, HOUR, MINUTE, POLICY, T0, TICK, key

ALGORITHMS = st.sampled_from(["ES256", "RS256", "PS256"])
FLAG = st.booleans()
STEPS = st.sampled_from(
    [TICK, 7 * TICK, MINUTE, 5 * MINUTE, HOUR, 23 * HOUR, 2 * DAY, 40 * DAY, 100 * DAY]
)
LIVES = st.sampled_from([TICK, MINUTE, 10 * MINUTE, HOUR])
AGE = {
    KeyState.NEXT: 0,
    KeyState.CURRENT: 1,
    KeyState.PREVIOUS: 2,
    KeyState.RETIRED: 3,
    KeyState.REVOKED: 4,
}


class Signing(RuleBasedStateMachine):
    """
    A signing ring with its ledger.
    """

    use = KeyUse.SIGNING
    policy: RotationPolicy = POLICY
    first = ("ES256", "RS256")

    def __init__(self):
        """
        Begin with a new ring.
        """
        super().__init__()
        self.now = T0
        keys = [key(name) for name in self.first]
        self.ring = KeyRing.first(self.use, keys, now=T0, policy=self.policy)
        self.ledger = LedgerDocument(since=T0)
        self.tokens: list[tuple[str, object]] = []
        self.cut: set[str] = set()
        self.hurried: set[str] = {k.id for k in self.ring}
        self.ages: dict[str, int] = {}
        self.ends: dict[str, object] = {}
        self.generation = 0

    # --- what happens ----------------------------------------------------------------------

    def do(self, verb, *args, **how):
        """
        Run a verb; a refusal is as good as a change.
        """
        try:
            change = getattr(self.ring, verb)(*args, now=self.now, **how)
        except KagimoriError:
            return None
        self.ring = change.ring
        return change

    def pick(self, number):
        """
        Return the id of some key of the ring.
        """
        return self.ring.keys[number % len(self.ring)].id

    @rule(step=STEPS)
    def time_passes(self, step):
        """
        The clock moves.
        """
        self.now += step

    @rule(algorithm=ALGORITHMS, life=LIVES)
    def a_token_is_issued(self, algorithm, life):
        """
        The current key signs, after the ledger has room.
        """
        current = self.ring.current(self.now, algorithm)
        if current is None:
            return
        end = self.now + life
        if self.use is KeyUse.SIGNING:
            self.ledger = self.ledger.reserved(current.id, end, self.policy.tolerance)
            counts = {current.id: {minute_end(end): 1}}
            self.ledger = self.ledger.counted(counts, self.now)
        self.tokens.append((current.id, end + self.policy.tolerance))

    @rule(algorithm=ALGORITHMS, make_default=FLAG, end_old=FLAG, replace=FLAG)
    def rotate(self, algorithm, make_default, end_old, replace):
        """
        The gentle rotation.
        """
        self.do(
            "rotate",
            key(algorithm, at=self.now),
            policy=self.policy,
            make_default=make_default,
            end_old_default=end_old,
            replace_waiting=replace,
        )

    @rule(algorithm=ALGORITHMS, ahead=st.sampled_from([timedelta(), TICK, MINUTE]))
    def rotate_in_an_emergency(self, algorithm, ahead):
        """
        The one that says that it breaks tokens at caching verifiers.
        """
        change = self.do(
            "rotate",
            key(algorithm, at=self.now),
            policy=self.policy,
            activates=self.now + ahead,
            replace_waiting=True,
            emergency=True,
        )
        if change is not None:
            self.hurried.add(change.key.id)

    @rule(number=st.integers(0, 20), emergency=FLAG)
    def activate(self, number, emergency):
        """
        A waiting key is let go.
        """
        change = self.do(
            "activate",
            self.pick(number),
            at=self.now + TICK,
            policy=self.policy,
            emergency=emergency,
        )
        if change is not None and emergency:
            self.hurried.add(change.key.id)

    @rule(number=st.integers(0, 20))
    def cancel(self, number):
        """
        A waiting key is taken back.
        """
        self.do("cancel", self.pick(number), policy=self.policy)

    @rule(number=st.integers(0, 20))
    def revoke(self, number):
        """
        A key is ended on purpose, with its tokens.
        """
        id_ = self.pick(number)
        algorithm = self.ring.get(id_).algorithm
        heir = key(algorithm, at=self.now)
        change = self.do("revoke", id_, policy=self.policy, replacement=heir)
        if change is not None:
            self.cut.add(id_)
            self.hurried |= {k.id for k in change.predecessors}

    @rule(number=st.integers(0, 20), force=FLAG)
    def delete(self, number, force):
        """
        A key is deleted; only force may cut tokens.
        """
        id_ = self.pick(number)
        live = LiveTokens()
        if self.use is KeyUse.SIGNING:
            live = live_tokens(self.ledger, self.ring.get(id_), self.now)
        if self.do("delete", id_, live=live, force=force) and force:
            self.cut.add(id_)

    @precondition(lambda self: self.use is KeyUse.SIGNING)
    @rule(algorithm=ALGORITHMS, end_old=FLAG)
    def make_default(self, algorithm, end_old):
        """
        Another algorithm becomes the default.
        """
        self.do("make_default", algorithm, end_old_default=end_old)

    @rule()
    def tick(self):
        """
        What the server does each second: ends, old keys, successors.
        """
        last = None
        if self.use is KeyUse.SIGNING:
            last = last_expiries(self.ledger, self.ring)
        settled = self.ring.settle(now=self.now, policy=self.policy, last_expiry=last)
        self.ring = settled or self.ring
        pruned = self.ring.prune(now=self.now, policy=self.policy)
        if pruned is not None:
            self.ring = pruned[0]
        for old in wanting_successor(self.ring, self.policy, self.now):
            self.do(
                "rotate",
                key(old.algorithm, at=self.now),
                policy=self.policy,
                activates=successor_activates(old, self.policy, self.now),
            )

    # --- what holds ------------------------------------------------------------------------

    @invariant()
    def no_living_token_loses_its_key(self):
        """
        Row 1: but by revocation and forced deletion.
        """
        published = {k.id for k in self.ring.verifying(self.now)}
        alive = {kid for kid, end in self.tokens if end > self.now}
        assert alive - self.cut <= published

    @invariant()
    def one_key_of_a_line_is_current_and_the_default_has_one(self):
        """
        Never two, and for the default never none.
        """
        lines = {k.algorithm for k in self.ring}
        for name in lines:
            line = self.ring.line(name, self.now)
            states = [self.ring.state(k, self.now) for k in line]
            assert states.count(KeyState.CURRENT) <= 1
            assert states.count(KeyState.NEXT) <= 1
        assert self.ring.current(self.now) is not None

    @invariant()
    def states_only_move_on(self):
        """
        No key is ever revived.
        """
        for one in self.ring:
            age = AGE[self.ring.state(one, self.now)]
            assert age >= self.ages.get(one.id, 0)
            self.ages[one.id] = age

    @invariant()
    def nothing_signs_before_it_was_seen(self):
        """
        K6: but in an emergency.
        """
        for one in self.ring:
            if one.id not in self.hurried:
                times = one.timeline
                assert times.activates >= times.published + self.policy.propagation

    @invariant()
    def ends_and_beginnings_are_one_instant(self):
        """
        Neither a gap nor an overlap between a key and its successor in its line.
        """
        for one in self.ring:
            heir = self.ring.get(one.timeline.successor or "")
            if heir is not None and heir.algorithm == one.algorithm:
                assert heir.timeline.activates == one.timeline.retires

    @invariant()
    def an_end_that_is_written_stays(self):
        """
        After `retires` nothing moves `expires`, and it is never before.
        """
        for one in self.ring:
            times = one.timeline
            if times.expires is not None:
                assert times.expires == self.ends.setdefault(one.id, times.expires)
                assert times.expires >= times.retires

    @invariant()
    def generations_rise(self):
        """
        Row 15: no two rings have one number.
        """
        assert self.ring.generation >= self.generation
        self.generation = self.ring.generation


class Cookies(Signing):
    """
    A cookie ring: one line, no ledger, everything lives as long as a session may.
    """

    use = KeyUse.COOKIE
    policy = COOKIE
    first = ("C",)


TestSigning = Signing.TestCase
TestSigning.settings = settings(stateful_step_count=40)
TestCookies = Cookies.TestCase
TestCookies.settings = settings(stateful_step_count=30, max_examples=50)
