"""Subscriptions, compared with a model of Redis: for each name the last change counts."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.engine.redis.pubsub.subscriptions import (
    MAX_UNCONFIRMED_NAMES,
    NAMES_PER_COMMAND,
    RedisSubscriptions,
)

NAMES = [b"a", b"b", b"c"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["send", "confirm", "confirm", "break"]), st.none()),
    ),
    max_size=40,
)


def ignore(message: bytes) -> None:
    """Discard a message."""


class Redis:
    """The names that a connection is subscribed to, and the confirmations on their way."""

    def __init__(self) -> None:
        self.subscribed: set[bytes] = set()
        self.confirmations: list[tuple[bytes, bool]] = []


class Machine:
    """Subscriptions over connections that break."""

    def __init__(self) -> None:
        self.subscriptions = RedisSubscriptions()
        self.redis = Redis()
        self.wanted: set[bytes] = set()
        self.waiting: list[asyncio.Future[None]] = []
        self.received_before: set[bytes] = set()
        self.subscriptions.on_connected()

    def step(self, step: str, name: bytes | None) -> None:
        if step == "subscribe" and name:
            self.wanted.add(name)
            self._wait(self.subscriptions.subscribe(name, ignore))
        elif step == "unsubscribe" and name:
            self.wanted.discard(name)
            self._wait(self.subscriptions.unsubscribe(name))
        elif step == "send":
            self.send()
        elif step == "confirm":
            self.confirm()
        elif step == "break":
            self.redis = Redis()
            self.subscriptions.on_connected()

    def _wait(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter:
            self.waiting.append(waiter)
        # None means that Redis has confirmed this state, and no change is pending or in flight.

    def send(self) -> bool:
        command = self.subscriptions.next_command()
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
        while self.send() or self.confirm():
            pass


async def walk(steps: list[tuple[str, bytes | None]]) -> None:
    machine = Machine()
    for step, name in steps:
        machine.step(step, name)
    machine.settle()
    assert machine.redis.subscribed == machine.wanted
    assert all(waiter.done() for waiter in machine.waiting)
    assert machine.subscriptions.is_restored
    for name in NAMES:
        assert (machine.subscriptions.callback_for(name) is not None) == (name in machine.wanted)
        assert machine.subscriptions.subscribe(name, ignore) is None or name not in machine.wanted


@given(STEPS)
def test_the_last_change_counts(steps: list[tuple[str, bytes | None]]) -> None:
    """In the end Redis sends the wanted names, and every caller is released."""
    asyncio.run(walk(steps))


@pytest.fixture
def subscriptions() -> RedisSubscriptions:
    subscriptions = RedisSubscriptions()
    subscriptions.on_connected()
    return subscriptions


async def test_restored_names_are_returned_once(subscriptions: RedisSubscriptions) -> None:
    """Neither new names nor names that are no longer wanted."""
    for name in (b"a", b"b"):
        subscriptions.subscribe(name, ignore)
    subscriptions.next_command()
    for name in (b"a", b"b"):
        subscriptions.confirm(name)
    assert subscriptions.take_restored() == []
    subscriptions.on_connected()
    subscriptions.unsubscribe(b"b")
    subscriptions.subscribe(b"c", ignore)
    while subscriptions.next_command():
        pass
    restored = [subscriptions.is_restored]
    for name in (b"a", b"b", b"c"):
        subscriptions.confirm(name)
        restored.append(subscriptions.is_restored)
    assert restored == [False, False, True, True]
    assert subscriptions.take_restored() == [b"a"]
    assert subscriptions.take_restored() == []


async def test_a_caller_waits_for_the_confirmation(subscriptions: RedisSubscriptions) -> None:
    """It does not wait for the sending only, and a broken connection does not release it."""
    waiter = subscriptions.subscribe(b"a", ignore)
    assert waiter is not None
    done = []
    for step in (subscriptions.next_command, subscriptions.on_connected, subscriptions.next_command):
        step()
        done.append(waiter.done())
    subscriptions.confirm(b"a")
    assert [*done, waiter.done()] == [False, False, False, True]


async def test_an_unexpected_confirmation_is_an_error(subscriptions: RedisSubscriptions) -> None:
    """The connection is then replaced, so no channel is believed to be subscribed by mistake."""
    subscriptions.subscribe(b"a", ignore)
    subscriptions.next_command()
    with pytest.raises(ValueError, match="another subscription"):
        subscriptions.confirm(b"b")


async def test_commands_are_bounded(subscriptions: RedisSubscriptions) -> None:
    """Many names are sent in several commands."""
    for number in range(2 * NAMES_PER_COMMAND + 1):
        subscriptions.subscribe(b"%d" % number, ignore)
    sizes = []
    while command := subscriptions.next_command():
        sizes.append(len(command.names))
    assert sizes == [NAMES_PER_COMMAND, NAMES_PER_COMMAND, 1]


async def test_unconfirmed_names_are_bounded(subscriptions: RedisSubscriptions) -> None:
    """No further name is sent until Redis confirms one."""
    for number in range(MAX_UNCONFIRMED_NAMES + 1):
        subscriptions.subscribe(b"%d" % number, ignore)
    sent: list[bytes] = []
    while command := subscriptions.next_command():
        sent += command.names
    assert len(sent) == MAX_UNCONFIRMED_NAMES
    subscriptions.confirm(sent[0])
    assert subscriptions.next_command() == (True, [b"%d" % MAX_UNCONFIRMED_NAMES])
