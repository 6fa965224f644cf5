"""Subscriptions, against a model of Redis: whatever is wished, lost and confirmed, the last wish counts."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin_server.engine.redis.pubsub.subscriptions import COMMAND_NAMES, UNCONFIRMED_NAMES, Subscriptions

NAMES = [b"a", b"b", b"c"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["want", "forget"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["take", "confirm", "confirm", "break"]), st.none()),
    ),
    max_size=40,
)


def ignore(message: bytes) -> None:
    """Hear nothing."""


class Redis:
    """What a connection is subscribed to, and the confirmations that are under way."""

    def __init__(self) -> None:
        self.subscribed: set[bytes] = set()
        self.confirmations: list[tuple[bytes, bool]] = []


class Machine:
    """Subscriptions on connections that break."""

    def __init__(self) -> None:
        self.subscriptions = Subscriptions()
        self.redis = Redis()
        self.wanted: set[bytes] = set()
        self.waiting: list[asyncio.Future[None]] = []
        self.heard_before: set[bytes] = set()
        self.subscriptions.begin()

    def step(self, what: str, name: bytes | None) -> None:
        if what == "want" and name:
            self.wanted.add(name)
            self._wait(self.subscriptions.want(name, ignore))
        elif what == "forget" and name:
            self.wanted.discard(name)
            self._wait(self.subscriptions.forget(name))
        elif what == "take":
            self.take()
        elif what == "confirm":
            self.confirm()
        elif what == "break":
            self.redis = Redis()
            self.subscriptions.begin()

    def _wait(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter:
            self.waiting.append(waiter)
        # None means that it is so already: nothing is under way, and Redis has it so.

    def take(self) -> bool:
        command = self.subscriptions.take()
        if command is None:
            return False
        for name in command.names:
            (self.redis.subscribed.add if command.is_subscribe else self.redis.subscribed.discard)(name)
            self.redis.confirmations.append((name, command.is_subscribe))
        return True

    def confirm(self) -> bool:
        if not self.redis.confirmations:
            return False
        name, _ = self.redis.confirmations.pop(0)
        self.subscriptions.confirm(name)
        return True

    def settle(self) -> None:
        while self.take() or self.confirm():
            pass


async def walk(steps: list[tuple[str, bytes | None]]) -> None:
    machine = Machine()
    for what, name in steps:
        machine.step(what, name)
    machine.settle()
    assert machine.redis.subscribed == machine.wanted
    assert all(waiter.done() for waiter in machine.waiting)
    assert machine.subscriptions.is_restored
    for name in NAMES:
        assert (machine.subscriptions.hear_of(name) is not None) == (name in machine.wanted)
        assert machine.subscriptions.want(name, ignore) is None or name not in machine.wanted


@settings(deadline=None)
@given(STEPS)
def test_the_last_wish_counts(steps: list[tuple[str, bytes | None]]) -> None:
    """In the end Redis sends what is wanted, and everybody who waited was told."""
    asyncio.run(walk(steps))


@pytest.fixture
def subscriptions() -> Subscriptions:
    subscriptions = Subscriptions()
    subscriptions.begin()
    return subscriptions


async def test_what_was_heard_before_and_is_again_is_restored_once(subscriptions: Subscriptions) -> None:
    """Neither what is new nor what nobody wants any more."""
    for name in (b"a", b"b"):
        subscriptions.want(name, ignore)
    subscriptions.take()
    for name in (b"a", b"b"):
        subscriptions.confirm(name)
    assert subscriptions.take_restored() == []
    subscriptions.begin()
    subscriptions.forget(b"b")
    subscriptions.want(b"c", ignore)
    while subscriptions.take():
        pass
    restored = [subscriptions.is_restored]
    for name in (b"a", b"b", b"c"):
        subscriptions.confirm(name)
        restored.append(subscriptions.is_restored)
    assert restored == [False, False, True, True]
    assert subscriptions.take_restored() == [b"a"]
    assert subscriptions.take_restored() == []


async def test_a_waiter_waits_for_redis(subscriptions: Subscriptions) -> None:
    """Not for the command, and not in vain if the connection breaks."""
    waiter = subscriptions.want(b"a", ignore)
    assert waiter is not None
    done = []
    for step in (subscriptions.take, subscriptions.begin, subscriptions.take):
        step()
        done.append(waiter.done())
    subscriptions.confirm(b"a")
    assert [*done, waiter.done()] == [False, False, False, True]


async def test_a_confirmation_of_something_else_is_a_broken_connection(subscriptions: Subscriptions) -> None:
    """Better a new one than channels that are believed to be heard."""
    subscriptions.want(b"a", ignore)
    subscriptions.take()
    with pytest.raises(ValueError, match="not asked"):
        subscriptions.confirm(b"b")


async def test_commands_are_bounded(subscriptions: Subscriptions) -> None:
    """Many names are several commands."""
    for number in range(2 * COMMAND_NAMES + 1):
        subscriptions.want(b"%d" % number, ignore)
    sizes = []
    while command := subscriptions.take():
        sizes.append(len(command.names))
    assert sizes == [COMMAND_NAMES, COMMAND_NAMES, 1]


async def test_what_is_unconfirmed_is_bounded(subscriptions: Subscriptions) -> None:
    """A Redis that reads nothing is asked for no more, until it confirms some of it."""
    for number in range(UNCONFIRMED_NAMES + 1):
        subscriptions.want(b"%d" % number, ignore)
    asked: list[bytes] = []
    while command := subscriptions.take():
        asked += command.names
    assert len(asked) == UNCONFIRMED_NAMES
    subscriptions.confirm(asked[0])
    assert subscriptions.take() == (True, [b"%d" % UNCONFIRMED_NAMES])
