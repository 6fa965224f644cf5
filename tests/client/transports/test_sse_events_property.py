"""For any losses and cuts of an event stream, the caller gets every offset in order, or a gap."""

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.models import Position, Publication, Subscribed
from tocsin.transports.sse_events import PublicationMissing, SseEvents

CHANNELS = ("a", "b")
KEPT = 3

Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["publish", "publish", "lose", "double", "cut", "reset"]), st.integers(0, 1)),
    max_size=40,
)


@dataclass
class History:
    """The history of a channel, as a correct server keeps it."""

    epoch: int = 1
    top: int = 0
    kept: list[int] = field(default_factory=list)

    @property
    def position(self) -> str:
        return f"{self.top}@{self.epoch}"

    def append(self) -> None:
        self.top += 1
        self.kept = [*self.kept, self.top][-KEPT:]


class Model:
    """A correct server with two channels, a client, and the positions that its caller knows."""

    def __init__(self) -> None:
        self.histories = {name: History() for name in CHANNELS}
        self.stream = SseEvents(CHANNELS)
        self.known: dict[str, Position | None] = dict.fromkeys(CHANNELS)
        self.sent = dict.fromkeys(CHANNELS, "")
        self.connect()

    def connect(self) -> None:
        """As docs/sse.md describes: positions first, then gaps, then missed publications."""
        last_id = self.stream.last_event_id
        since = [Position.parse(one) for one in last_id.split(",")] if last_id else [None] * len(CHANNELS)
        self.stream.on_connected()
        gaps, missed = [], []
        for name, position in zip(CHANNELS, since, strict=True):
            history = self.histories[name]
            self.sent[name] = str(position) if position else history.position
            if position is None:
                continue
            later = [offset for offset in history.kept if offset > position.offset]
            is_complete = later[0] == position.offset + 1 if later else position.offset == history.top
            if is_complete and position.epoch == str(history.epoch):
                missed += [(name, offset) for offset in later]
            else:
                gaps.append(name)
        self.receive("", "")
        for name in gaps:
            self.sent[name] = self.histories[name].position
            to = {"offset": self.histories[name].top, "epoch": str(self.histories[name].epoch)}
            self.receive("gap", json.dumps({"channel": name, "to": to}))
        for name, offset in missed:
            self.message(name, offset)

    def message(self, name: str, offset: int) -> None:
        history = self.histories[name]
        self.sent[name] = f"{offset}@{history.epoch}"
        publication = {"data": [history.epoch, offset], "offset": offset}
        self.receive("", json.dumps({"channel": name, "pub": publication}))

    def receive(self, event: str, data: str) -> None:
        try:
            for reported in self.stream.handle(event, data, ",".join(self.sent.values())):
                self.check(reported)
        except PublicationMissing:
            self.connect()

    def check(self, event: Any) -> None:
        """Check that offsets rise by one within an epoch, unless the caller gets a gap."""
        last = self.known[event.channel]
        if isinstance(event, Subscribed):
            if event.recovered:
                assert event.position == last, "recovered, but from another position"
            else:
                assert (event.recovered is None) == (last is None)
                self.known[event.channel] = event.position
        else:
            assert isinstance(event, Publication)
            assert last is not None, "a publication before its subscription"
            assert (event.offset, event.epoch) == (last.offset + 1, last.epoch), "an unreported gap"
            assert event.data == [int(event.epoch), event.offset]
            self.known[event.channel] = event.position

    def step(self, action: str, index: int) -> None:
        name = CHANNELS[index]
        history = self.histories[name]
        if action == "cut":
            self.connect()
        elif action == "reset":
            self.histories[name] = History(history.epoch + 1)
            self.connect()
        else:
            history.append()
            if action != "lose":
                self.message(name, history.top)
            if action == "double":
                self.message(name, history.top)


@settings(max_examples=300)
@given(steps)
def test_a_caller_gets_every_offset_once_and_in_order_or_a_gap(steps: list[Step]) -> None:
    model = Model()
    for action, index in steps:
        model.step(action, index)
    for name in CHANNELS:
        model.step("publish", CHANNELS.index(name))
        history = model.histories[name]
        assert model.known[name] == Position(history.top, str(history.epoch)), "the caller arrives at the top"
