"""Sharded subscriptions: names that are rejected, revoked or moved end up at the master that serves them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.engine.redis.cluster.slots import slot_of
from tocsin_server.engine.redis.cluster.subscriptions import ShardedSubscriptions

NAMES = [b"a", b"b", b"c"]
ONE_OF_TWO = st.sampled_from([0, 1])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["subscribe", "unsubscribe", "move"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["send", "reply", "reply", "retry", "break"]), ONE_OF_TWO),
        st.tuples(st.just("reread"), st.none()),
    ),
    max_size=50,
)


def ignore(message: bytes) -> None:
    """Discard a message."""


class Master:
    """A fake server: the names that it serves, those that a connection is subscribed to, and its replies."""

    def __init__(self) -> None:
        self.serves: set[bytes] = set()
        self.subscribed: set[bytes] = set()
        self.replies: list[tuple[str, bytes]] = []

    def receive(self, name: bytes, *, is_subscribe: bool) -> None:
        if name not in self.serves:
            self.replies.append(("moved", name))
        elif is_subscribe:
            self.subscribed.add(name)
            self.replies.append(("ssubscribe", name))
        else:
            self.subscribed.discard(name)
            self.replies.append(("sunsubscribe", name))

    def revoke(self, name: bytes) -> None:
        self.serves.discard(name)
        if name in self.subscribed:
            self.subscribed.discard(name)
            self.replies.append(("sunsubscribe", name))

    def disconnect(self) -> None:
        self.subscribed.clear()
        self.replies.clear()


class Machine:
    """Two masters, the subscriptions of their shards, and the master that is believed to serve each name."""

    def __init__(self) -> None:
        self.masters = [Master(), Master()]
        self.shards = [ShardedSubscriptions(), ShardedSubscriptions()]
        self.believed = dict.fromkeys(NAMES, 0)
        self.masters[0].serves.update(NAMES)
        self.wanted: set[bytes] = set()
        self.waiting: list[asyncio.Future[None]] = []
        self.confirmed: set[bytes] = set()
        self.interrupted: set[bytes] = set()  # of these, interrupted ones that were not reported yet
        for subscriptions in self.shards:
            subscriptions.on_connected()

    def owner(self, name: bytes) -> int:
        return next(number for number, master in enumerate(self.masters) if name in master.serves)

    def step(self, step: str, target: bytes | int | None) -> None:
        if isinstance(target, bytes):
            getattr(self, step)(target)
        elif target is None:
            self.reread()
        else:
            getattr(self, {"break": "disconnect"}.get(step, step))(target)

    def subscribe(self, name: bytes) -> None:
        self.wanted.add(name)
        self._wait(self.shards[self.believed[name]].subscribe(name, ignore))

    def unsubscribe(self, name: bytes) -> None:
        for names in (self.wanted, self.confirmed, self.interrupted):
            names.discard(name)
        self._wait(self.shards[self.believed[name]].unsubscribe(name))

    def _wait(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None:
            self.waiting.append(waiter)

    def move(self, name: bytes) -> None:
        """Move the name's slot to the other master."""
        owner = self.owner(name)
        if name in self.confirmed:
            self.interrupted.add(name)
        self.masters[owner].revoke(name)
        self.masters[1 - owner].serves.add(name)

    def send(self, number: int) -> bool:
        command = self.shards[number].next_command()
        for name in command.names if command else ():
            self.masters[number].receive(name, is_subscribe=command.is_subscribe)  # type: ignore[union-attr]
        return command is not None

    def reply(self, number: int) -> bool:
        if not self.masters[number].replies:
            return False
        kind, name = self.masters[number].replies.pop(0)
        subscriptions = self.shards[number]
        if kind == "moved":
            subscriptions.reject(slot_of(name))
        elif kind == "sunsubscribe" and subscriptions.is_unsolicited(name):
            subscriptions.revoke(name)
        else:
            subscriptions.confirm(name)
            if kind == "ssubscribe" and name in self.wanted:
                self.confirmed.add(name)
            if subscriptions.take_resumed(name):
                self.interrupted.discard(name)
        if subscriptions.is_restored:
            self.interrupted.difference_update(subscriptions.take_restored())
        return True

    def retry(self, number: int) -> None:
        self.shards[number].retry()

    def disconnect(self, number: int) -> None:
        master = self.masters[number]
        self.interrupted |= master.subscribed & self.confirmed
        master.disconnect()
        self.shards[number].on_connected()

    def reread(self) -> None:
        """Read the topology again: the router learns which master serves each name."""
        self.believed = {name: self.owner(name) for name in NAMES}
        for number in (0, 1):
            self._move_from(number)

    def _move_from(self, number: int) -> None:
        for moved in self.shards[number].release(lambda name: self.believed[name] != number):
            self.shards[1 - number].accept(moved)

    def settle(self) -> None:
        for _ in range(3):
            self.reread()
            for number in (0, 1):
                self.retry(number)
                while self.send(number) or self.reply(number):
                    pass


async def walk(steps: list[tuple[str, bytes | int | None]]) -> None:
    machine = Machine()
    for step, target in steps:
        machine.step(step, target)
    machine.settle()
    for number, master in enumerate(machine.masters):
        wanted_here = {name for name in machine.wanted if machine.owner(name) == number}
        assert master.subscribed == wanted_here
        assert machine.shards[number].is_restored
        assert {name for name in NAMES if machine.shards[number].callback_for(name)} == wanted_here
    assert all(waiter.done() for waiter in machine.waiting)
    assert not machine.interrupted


@given(STEPS)
def test_names_end_up_at_the_master_that_serves_them(steps: list[tuple[str, bytes | int | None]]) -> None:
    """Every caller is released, and every interruption is reported."""
    asyncio.run(walk(steps))


@pytest.fixture
def subscriptions() -> ShardedSubscriptions:
    subscriptions = ShardedSubscriptions()
    subscriptions.on_connected()
    return subscriptions


async def test_the_callers_of_a_moved_name_wait_for_the_new_master(
    subscriptions: ShardedSubscriptions,
) -> None:
    """A name that was never confirmed is not reported as resumed."""
    waiter = subscriptions.subscribe(b"a", ignore)
    assert waiter is not None
    subscriptions.next_command()
    other = ShardedSubscriptions()
    other.on_connected()
    (moved,) = subscriptions.release(lambda name: name == b"a")
    other.accept(moved)
    subscriptions.reject()
    assert not waiter.done()
    other.next_command()
    other.confirm(b"a")
    assert waiter.done()
    assert not other.take_resumed(b"a")


async def test_a_revoked_name_is_subscribed_to_again_only_by_retry(
    subscriptions: ShardedSubscriptions,
) -> None:
    """Until the topology is read again, Redis would reject it again."""
    subscriptions.subscribe(b"a", ignore)
    subscriptions.next_command()
    subscriptions.confirm(b"a")
    assert subscriptions.is_unsolicited(b"a")
    subscriptions.revoke(b"a")
    assert subscriptions.next_command() is None
    subscriptions.retry()
    assert subscriptions.next_command() == (True, [b"a"])
    subscriptions.confirm(b"a")
    assert subscriptions.take_resumed(b"a")
    assert not subscriptions.take_resumed(b"a")
