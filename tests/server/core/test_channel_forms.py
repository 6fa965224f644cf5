"""Deltas and filters: under all events, a client has exactly the published payloads, and no other.

The machine drives one channel as a node does. Publications get lost and are backfilled; clients subscribe,
recover, catch up in pages, fall behind and get what was kept for them; batches are delivered subscriber by
subscriber, and everything may happen in between. Clients apply deltas as an SDK does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import Raw

from tests.server.core.published import EVEN, may_be_delta, payload, published
from tests.support.fossil import apply_delta
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel import Channel, ChannelMessage
from tocsin_server.core.form import PLAIN, WITH_DELTA, Form
from tocsin_server.core.positions import Continuity, History
from tocsin_server.core.tags_filter import TagsFilters
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    ClientInfo,
    Position,
    PresenceChange,
    Publication,
    Push,
    Reply,
    SubscribeResult,
)

EPOCH = "abcdefgh"
HISTORY_SIZE = 6
PAGE_SIZE = 2
JOIN = Push("news", join=PresenceChange(ClientInfo("ada", "c1")))
FILTERS = TagsFilters()
EVEN_ONLY = Form(tags_filter=FILTERS.parse(Raw(json.dumps(EVEN).encode())))
KEEP_ALL = ChannelOptions(slow_policy="drop_oldest")
KEEP_SOME = ChannelOptions(slow_policy="drop_oldest", slow_limit_bytes=500)
KEEP_LATEST = ChannelOptions(slow_policy="latest", slow_key="room")
picks = st.integers(0, 99)
forms = st.sampled_from([WITH_DELTA, WITH_DELTA, WITH_DELTA, EVEN_ONLY, PLAIN])
policies = st.sampled_from([KEEP_ALL, KEEP_SOME, KEEP_LATEST])


class LineFraming:
    """Packs messages as lines, like a transport. Each is a framing of its own."""

    codec = JSON

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> list[bytes]:
        """Return the lines."""
        return [message.encoded(JSON) for message in messages]


FRAMINGS = LineFraming(), LineFraming()


class Client:
    """A client of the channel: applies deltas, and checks each publication."""

    def __init__(self, framing: LineFraming, form: Form) -> None:
        self.framing = framing
        self.form = form
        self.numbers: list[int] = []
        """Those of the publications with offsets that it has, in the order in which it got them."""
        self.unstored: set[int] = set()
        """Those of the others."""
        self.is_subscribed = True
        self.may_skip = False
        """Whether publications were kept for it of which only the latest count."""
        self._base = b""

    @property
    def write(self) -> Callable[[Any], object]:
        """What the channel calls."""
        return self._receive

    def _receive(self, lines: list[bytes]) -> None:
        assert self.is_subscribed
        assert lines
        for line in lines:
            push = json.loads(line)
            if "pub" in push:
                self.take(push["pub"])

    def take(self, publication: dict[str, Any]) -> None:
        """Take one publication."""
        data = publication["data"]
        if self.form.uses_delta:
            text = data.encode()
            if publication.get("delta"):
                assert self._base, "a delta before anything whole"
                text = apply_delta(self._base, text)
            self._base = text
            data = json.loads(text)
            assert text == payload(data[0], data[1])
        else:
            assert "delta" not in publication
        epoch, number, _ = data
        assert data == json.loads(payload(epoch, number))
        assert not self.form.tags_filter or number % 2 == 0, "it does not match the filter"
        if not publication.get("offset"):  # what it overtakes may be backfilled
            assert number not in self.unstored, "twice"
            self.unstored.add(number)
            return
        assert not self.numbers or number > self.numbers[-1], "out of order, or twice"
        self.numbers.append(number)


class Forms(RuleBasedStateMachine):
    """One channel, and clients that get its publications in several forms."""

    def __init__(self) -> None:
        super().__init__()
        self.channel: Channel[Client] = Channel("news")
        self.channel.tracker.set(Position(0, EPOCH))
        self.number = self.top = 0
        self.kept: list[Publication] = []
        self.received: list[int] = []
        """The numbers of the publications with offsets that the channel has received."""
        self.clients: list[Client] = []
        self.batch: Iterator[None] = iter(())

    def _pick(self, pick: int, clients: Sequence[Client]) -> Client | None:
        return clients[pick % len(clients)] if clients else None

    def _history(self, since: int) -> History:
        missed = [one for one in self.kept if one.offset > since]
        return History(Position(self.top, EPOCH), missed)

    # ------------------------------------------------------------------------------------------------ publish

    @initialize(count=st.integers(1, 3))
    def start(self, count: int) -> None:
        """Begin with clients that use deltas, and some publications."""
        for number in range(count):
            self.subscribe(WITH_DELTA, number, 0)
        self.publish(3, is_stored=True)
        self.deliver_all()

    @rule(count=st.integers(1, 5), is_stored=st.integers(0, 3).map(bool))
    def publish(self, count: int, is_stored: bool, is_lost: bool = False) -> None:
        for _ in range(count):
            self.number += 1
            self.top += is_stored
            publication = published(EPOCH, self.number, self.top if is_stored else 0)
            if is_stored:
                self.kept = [*self.kept, publication][-HISTORY_SIZE:]
            if not is_lost:
                self._receive(publication, may_be_delta=may_be_delta(self.number))

    @rule(count=st.integers(1, 2), is_stored=st.booleans())
    def lose(self, count: int, is_stored: bool) -> None:
        self.publish(count, is_stored, is_lost=True)

    @rule(is_delivered=st.booleans())
    def join(self, is_delivered: bool) -> None:
        self.channel.receive_join_leave(JOIN)
        if is_delivered:
            self.deliver_all()

    def _receive(self, publication: Publication, may_be_delta: bool = False) -> None:
        received = self.channel.receive(publication, EPOCH, may_be_delta=may_be_delta)
        if received is Continuity.NEXT and publication.has_offset:
            self.received.append(json.loads(bytes(publication.data))[1])
        elif received is Continuity.AHEAD:
            self.backfill()

    @rule()
    def backfill(self) -> None:
        missed = self._history(self.channel.tracker.offset).publications
        if missed and missed[0].offset > self.channel.tracker.offset + 1:
            for client in self.channel.reset(Position(missed[0].offset - 1, EPOCH)):
                self._end(client)
        for publication in missed:
            self._receive(publication)

    # ---------------------------------------------------------------------------------------------- subscribe

    @rule(form=forms, framing=picks, behind=st.integers(0, 4))
    def subscribe(self, form: Form, framing: int, behind: int) -> None:
        """Let a client subscribe that misses up to so many publications, which its reply has."""
        self._subscribe(form, framing, behind)

    @rule(form=forms, framing=picks, behind=st.integers(1, HISTORY_SIZE))
    def subscribe_and_catch_up(self, form: Form, framing: int, behind: int) -> None:
        """Let a client subscribe that gets what it misses in pages later."""
        self._subscribe(form, framing, behind, catches_up=True)

    def _subscribe(self, form: Form, framing: int, behind: int, *, catches_up: bool = False) -> None:
        client = Client(FRAMINGS[framing % 2], form)
        since = max(self.top - behind, self.top - len(self.kept))
        self.channel.begin_subscribe()
        history = self._history(since)
        if catches_up and history.publications:
            self.channel.go_live(client, since, framing % 3 > 0, form=form, catches_up=True)
        else:
            merged = self.channel.merge(history)
            if merged is None:
                self.channel.unsubscribe(client)
                return
            self._reply(client, merged.publications)
            self.channel.go_live(client, merged.top.offset, framing % 3 > 0, form=form)
        self.clients.append(client)

    def _reply(self, client: Client, recovered: Sequence[Publication]) -> None:
        tags_filter = client.form.tags_filter
        wanted = [one for one in recovered if not tags_filter or tags_filter.matches(one.tags or {})]
        result = SubscribeResult(publications=wanted, delta=client.form.uses_delta)
        reply = json.loads(JSON.encode(Reply(1, subscribe=result)))["subscribe"]
        for publication in reply.get("publications", []):
            client.take(publication)

    @rule(pick=picks)
    def page(self, pick: int) -> None:
        client = self._pick(pick, list(self.channel._catching_up))
        if client is None:
            return
        since = self.channel.catching_up_from(client)
        assert since is not None
        history = self._history(since)
        added = self.channel.catch_up(client, History(history.top, history.publications[:PAGE_SIZE]))
        if added.has_gap:
            self._end(client)
        elif added.messages:
            client.write(client.framing.pack("news", added.messages))

    @rule(pick=picks)
    def unsubscribe(self, pick: int) -> None:
        if client := self._pick(pick, self.clients):
            self._end(client)

    def _end(self, client: Client) -> None:
        client.is_subscribed = False
        self.clients.remove(client)
        self.channel.unsubscribe(client)

    # ------------------------------------------------------------------------------------------- slow clients

    @rule(pick=picks, options=policies)
    def fall_behind(self, pick: int, options: ChannelOptions) -> None:
        if client := self._pick(pick, self.clients):
            self.channel.keep_aside(client, options)
            client.may_skip = client.may_skip or options is KEEP_LATEST

    @rule(pick=picks)
    def no_longer_behind(self, pick: int) -> None:
        if client := self._pick(pick, list(self.channel._kept_aside)):
            self._release(client)

    @rule(pick=picks, options=policies, count=st.integers(2, 6))
    def be_behind_for_a_while(self, pick: int, options: ChannelOptions, count: int) -> None:
        self.fall_behind(pick, options)
        self.publish(count, is_stored=True)
        self.deliver_all()
        self.no_longer_behind(pick)

    def _release(self, client: Client) -> None:
        kept = self.channel.release(client)
        assert kept is not None
        if kept.dropped:
            self._end(client)
        elif kept.messages:
            client.write(client.framing.pack("news", kept.messages))

    # ------------------------------------------------------------------------------------------------ deliver

    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        """Write to so many subscribers, within one batch or several."""
        for _ in range(count):
            if next(self.batch, self) is self:
                self.batch = self._write_batch()

    @rule()
    def deliver_all(self) -> None:
        for _ in self.batch:
            pass
        while self.channel.has_queued:
            for _ in self._write_batch():
                pass

    def _write_batch(self) -> Iterator[None]:
        if self.channel.has_queued:
            for framing, subscribers, messages in self.channel.take_batch().recipients:
                for subscriber in subscribers:
                    yield
                    subscriber.write(framing.pack("news", messages))

    # ----------------------------------------------------------------------------------------------- checking

    @invariant()
    def clients_have_no_gap(self) -> None:
        """Between the first and the last publication that a client has, none with an offset is missing."""
        for client in self.clients:
            if client.numbers:
                self._expect_all(client, client.numbers[-1])

    def _expect_all(self, client: Client, last: int) -> None:
        """Check that a client has everything from its first publication up to `last`."""
        for number in () if client.may_skip else self.received:
            if client.numbers[0] <= number <= last and (number % 2 == 0 or not client.form.tags_filter):
                assert number in client.numbers, "a gap"

    def teardown(self) -> None:
        """Check that each client gets everything up to the top."""
        self.backfill()
        while self.channel._catching_up:
            self.page(0)
        self.deliver_all()
        while self.channel._kept_aside:
            self._release(next(iter(self.channel._kept_aside)))
        for client in self.clients:
            if client.numbers:
                self._expect_all(client, self.number)


TestForms = Forms.TestCase
TestForms.settings = settings(max_examples=150, stateful_step_count=40)
