"""Whatever is lost or cut on an event stream: offsets rise without a hole, or the caller is told of it."""

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.feed import Feed, Hole
from tocsin.values import Position, Publication, Subscribed

CHANNELS = ("a", "b")
KEPT = 3

Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["publish", "publish", "lose", "double", "cut", "renew"]), st.integers(0, 1)),
    max_size=40,
)


@dataclass
class Log:
    """A channel as a correct server keeps it."""

    epoch: int = 1
    top: int = 0
    kept: list[int] = field(default_factory=list)

    @property
    def position(self) -> str:
        return f"{self.top}@{self.epoch}"

    def append(self) -> None:
        self.top += 1
        self.kept = [*self.kept, self.top][-KEPT:]


class World:
    """Two logs, a client's feed, and what its caller has been told."""

    def __init__(self) -> None:
        self.logs = {name: Log() for name in CHANNELS}
        self.feed = Feed(CHANNELS)
        self.told: dict[str, Position | None] = dict.fromkeys(CHANNELS)
        self.sent = dict.fromkeys(CHANNELS, "")
        self.connect()

    def connect(self) -> None:
        """As docs/sse.md says: positions first, then gaps, then what was missed."""
        known = self.feed.last_event_id
        since = [Position.parse(one) for one in known.split(",")] if known else [None] * len(CHANNELS)
        self.feed.opened()
        gaps, missed = [], []
        for name, position in zip(CHANNELS, since, strict=True):
            log = self.logs[name]
            self.sent[name] = str(position) if position else log.position
            if position is None:
                continue
            later = [offset for offset in log.kept if offset > position.offset]
            is_whole = later[0] == position.offset + 1 if later else position.offset == log.top
            if is_whole and position.epoch == str(log.epoch):
                missed += [(name, offset) for offset in later]
            else:
                gaps.append(name)
        self.hear("", "")
        for name in gaps:
            self.sent[name] = self.logs[name].position
            to = {"offset": self.logs[name].top, "epoch": str(self.logs[name].epoch)}
            self.hear("gap", json.dumps({"channel": name, "to": to}))
        for name, offset in missed:
            self.message(name, offset)

    def message(self, name: str, offset: int) -> None:
        log = self.logs[name]
        self.sent[name] = f"{offset}@{log.epoch}"
        publication = {"data": [log.epoch, offset], "offset": offset}
        self.hear("", json.dumps({"channel": name, "pub": publication}))

    def hear(self, event: str, data: str) -> None:
        try:
            for told in self.feed.take(event, data, ",".join(self.sent.values())):
                self.check(told)
        except Hole:
            self.connect()

    def check(self, event: Any) -> None:
        """The property itself."""
        last = self.told[event.channel]
        if isinstance(event, Subscribed):
            if event.recovered:
                assert event.position == last, "whole, but from elsewhere"
            else:
                assert (event.recovered is None) == (last is None)
                self.told[event.channel] = event.position
        else:
            assert isinstance(event, Publication)
            assert last is not None, "a message before its channel"
            assert (event.offset, event.epoch) == (last.offset + 1, last.epoch), "a hole, untold"
            assert event.data == [int(event.epoch), event.offset]
            self.told[event.channel] = event.position

    def step(self, what: str, which: int) -> None:
        name = CHANNELS[which]
        log = self.logs[name]
        if what == "cut":
            self.connect()
        elif what == "renew":
            self.logs[name] = Log(log.epoch + 1)
            self.connect()
        else:
            log.append()
            if what != "lose":
                self.message(name, log.top)
            if what == "double":
                self.message(name, log.top)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_a_caller_sees_every_offset_once_and_in_order_or_is_told(steps: list[Step]) -> None:
    world = World()
    for what, which in steps:
        world.step(what, which)
    for name in CHANNELS:
        world.step("publish", CHANNELS.index(name))
        log = world.logs[name]
        assert world.told[name] == Position(log.top, str(log.epoch)), "the caller arrives at the top"
