"""The expiry queue, compared with a plain dictionary of deadlines."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tocsin_server.engine.memory.expiry import ExpiryQueue

KEYS = st.sampled_from("abcd")


class ExpiryQueueModel(RuleBasedStateMachine):
    """Each key has at most one deadline, and only expired keys are returned, one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = ExpiryQueue[str]()
        self.model: dict[str, float] = {}

    @rule(seconds=st.integers(0, 7))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(key=KEYS, seconds=st.sampled_from([1, 5, 12]))
    def put(self, key: str, seconds: int) -> None:
        self.queue.set(key, seconds, self.now)
        self.model[key] = self.now + seconds

    @rule(key=KEYS)
    def cancel(self, key: str) -> None:
        self.queue.cancel(key)
        self.model.pop(key, None)

    @rule()
    def pop_all_expired(self) -> None:
        popped = set()
        while (key := self.queue.pop_expired(self.now)) is not None:
            assert self.model.pop(key) <= self.now
            popped.add(key)
        assert all(deadline > self.now for deadline in self.model.values())

    @invariant()
    def the_queue_equals_the_model(self) -> None:
        assert self.queue.next_deadline == min(self.model.values(), default=math.inf)
        assert len(self.queue) == len(self.model)
        assert sum(map(len, self.queue._queues.values())) == len(self.model)
        assert all(self.queue._queues.values())


TestExpiryQueue = ExpiryQueueModel.TestCase
TestExpiryQueue.settings = settings(max_examples=60)  # of up to 50 steps each
