"""Deadlines against a plain dictionary of them."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tocsin_server.engine.memory.expiry import ExpiryQueue

KEYS = st.sampled_from("abcd")


class DeadlinesModel(RuleBasedStateMachine):
    """Each key has at most one deadline; only those that have come are taken, one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.deadlines = ExpiryQueue[str]()
        self.model: dict[str, float] = {}

    @rule(seconds=st.integers(0, 7))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(key=KEYS, seconds=st.sampled_from([1, 5, 12]))
    def put(self, key: str, seconds: int) -> None:
        self.deadlines.set(key, seconds, self.now)
        self.model[key] = self.now + seconds

    @rule(key=KEYS)
    def cancel(self, key: str) -> None:
        self.deadlines.cancel(key)
        self.model.pop(key, None)

    @rule()
    def take_all(self) -> None:
        taken = set()
        while (key := self.deadlines.pop_expired(self.now)) is not None:
            assert self.model.pop(key) <= self.now
            taken.add(key)
        assert all(deadline > self.now for deadline in self.model.values())

    @invariant()
    def the_next_is_known_and_nothing_is_left_behind(self) -> None:
        assert self.deadlines.next_deadline == min(self.model.values(), default=math.inf)
        assert len(self.deadlines) == len(self.model)
        assert sum(map(len, self.deadlines._queues.values())) == len(self.model)
        assert all(self.deadlines._queues.values())


TestDeadlines = DeadlinesModel.TestCase
TestDeadlines.settings = settings(max_examples=60)  # of up to 50 steps each
