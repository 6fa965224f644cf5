"""Names that move between links: wished, refused, taken away or lost, each ends up where it belongs."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin_server.engine.redis.cluster.slots import slot_of
from tocsin_server.engine.redis.cluster.subscriptions import ShardedSubscriptions

NAMES = [b"a", b"b", b"c"]
ONE_OF_TWO = st.sampled_from([0, 1])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["want", "forget", "serve"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["take", "answer", "answer", "retry", "break"]), ONE_OF_TWO),
        st.tuples(st.just("look"), st.none()),
    ),
    max_size=50,
)


def ignore(message: bytes) -> None:
    """Hear nothing."""


class Master:
    """What a server serves, what the connection to it is subscribed to, and its answers under way."""

    def __init__(self) -> None:
        self.serves: set[bytes] = set()
        self.subscribed: set[bytes] = set()
        self.answers: list[tuple[str, bytes]] = []

    def ask(self, name: bytes, *, is_subscribe: bool) -> None:
        if name not in self.serves:
            self.answers.append(("moved", name))
        elif is_subscribe:
            self.subscribed.add(name)
            self.answers.append(("ssubscribe", name))
        else:
            self.subscribed.discard(name)
            self.answers.append(("sunsubscribe", name))

    def lose(self, name: bytes) -> None:
        self.serves.discard(name)
        if name in self.subscribed:
            self.subscribed.discard(name)
            self.answers.append(("sunsubscribe", name))

    def hang_up(self) -> None:
        self.subscribed.clear()
        self.answers.clear()


class Machine:
    """Two masters, the links to them, and the owner that each name is believed to have."""

    def __init__(self) -> None:
        self.masters = [Master(), Master()]
        self.links = [ShardedSubscriptions(), ShardedSubscriptions()]
        self.believed = dict.fromkeys(NAMES, 0)
        self.masters[0].serves.update(NAMES)
        self.wanted: set[bytes] = set()
        self.waiting: list[asyncio.Future[None]] = []
        self.heard: set[bytes] = set()  # that were confirmed
        self.unheard: set[bytes] = set()  # of these, that were not heard for a while, and nobody was told
        for link in self.links:
            link.on_connected()

    def owner(self, name: bytes) -> int:
        return next(number for number, master in enumerate(self.masters) if name in master.serves)

    def step(self, what: str, which: bytes | int | None) -> None:
        if isinstance(which, bytes):
            getattr(self, what)(which)
        elif which is None:
            self.look()
        else:
            getattr(self, {"break": "hang_up"}.get(what, what))(which)

    def want(self, name: bytes) -> None:
        self.wanted.add(name)
        self._wait(self.links[self.believed[name]].subscribe(name, ignore))

    def forget(self, name: bytes) -> None:
        for names in (self.wanted, self.heard, self.unheard):
            names.discard(name)
        self._wait(self.links[self.believed[name]].unsubscribe(name))

    def _wait(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None:
            self.waiting.append(waiter)

    def serve(self, name: bytes) -> None:
        """The name's slot moves to the other master."""
        owner = self.owner(name)
        if name in self.heard:
            self.unheard.add(name)
        self.masters[owner].lose(name)
        self.masters[1 - owner].serves.add(name)

    def take(self, number: int) -> bool:
        command = self.links[number].next_command()
        for name in command.names if command else ():
            self.masters[number].ask(name, is_subscribe=command.is_subscribe)  # type: ignore[union-attr]
        return command is not None

    def answer(self, number: int) -> bool:
        if not self.masters[number].answers:
            return False
        kind, name = self.masters[number].answers.pop(0)
        link = self.links[number]
        if kind == "moved":
            link.reject(slot_of(name))
        elif kind == "sunsubscribe" and link.is_unsolicited(name):
            link.revoke(name)
        else:
            link.confirm(name)
            if kind == "ssubscribe" and name in self.wanted:
                self.heard.add(name)
            if link.take_resumed(name):
                self.unheard.discard(name)
        if link.is_restored:
            self.unheard.difference_update(link.take_restored())
        return True

    def retry(self, number: int) -> None:
        self.links[number].retry()

    def hang_up(self, number: int) -> None:
        master = self.masters[number]
        self.unheard |= master.subscribed & self.heard
        master.hang_up()
        self.links[number].on_connected()

    def look(self) -> None:
        """What is believed becomes what is so."""
        self.believed = {name: self.owner(name) for name in NAMES}
        for number in (0, 1):
            self._move_from(number)

    def _move_from(self, number: int) -> None:
        for moved in self.links[number].release(lambda name: self.believed[name] != number):
            self.links[1 - number].accept(moved)

    def settle(self) -> None:
        for _ in range(3):
            self.look()
            for number in (0, 1):
                self.retry(number)
                while self.take(number) or self.answer(number):
                    pass


async def walk(steps: list[tuple[str, bytes | int | None]]) -> None:
    machine = Machine()
    for what, which in steps:
        machine.step(what, which)
    machine.settle()
    for number, master in enumerate(machine.masters):
        wanted_here = {name for name in machine.wanted if machine.owner(name) == number}
        assert master.subscribed == wanted_here
        assert machine.links[number].is_restored
        assert {name for name in NAMES if machine.links[number].callback_for(name)} == wanted_here
    assert all(waiter.done() for waiter in machine.waiting)
    assert not machine.unheard


@settings(deadline=None)
@given(STEPS)
def test_names_end_up_where_they_are_served(steps: list[tuple[str, bytes | int | None]]) -> None:
    """Each is heard from its owner; everybody who waited was told, and whatever was not heard is resumed."""
    asyncio.run(walk(steps))


@pytest.fixture
def link() -> ShardedSubscriptions:
    link = ShardedSubscriptions()
    link.on_connected()
    return link


async def test_who_waits_moves_along(link: ShardedSubscriptions) -> None:
    """A subscription that was asked for here is confirmed there, and what was never heard is not resumed."""
    waiter = link.subscribe(b"a", ignore)
    assert waiter is not None
    link.next_command()
    other = ShardedSubscriptions()
    other.on_connected()
    (moved,) = link.release(lambda name: name == b"a")
    other.accept(moved)
    link.reject()
    assert not waiter.done()
    other.next_command()
    other.confirm(b"a")
    assert waiter.done()
    assert not other.take_resumed(b"a")


async def test_what_was_taken_away_is_asked_for_again_only_when_told(link: ShardedSubscriptions) -> None:
    """Until somebody has looked at who serves it, asking would be in vain."""
    link.subscribe(b"a", ignore)
    link.next_command()
    link.confirm(b"a")
    assert link.is_unsolicited(b"a")
    link.revoke(b"a")
    assert link.next_command() is None
    link.retry()
    assert link.next_command() == (True, [b"a"])
    link.confirm(b"a")
    assert link.take_resumed(b"a")
    assert not link.take_resumed(b"a")
