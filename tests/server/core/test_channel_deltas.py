"""When a subscriber gets a publication as a delta, and when the whole of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from tests.server.core.published import payload
from tests.server.core.recording_connection import deliver_all
from tests.support.fossil import apply_delta
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel import Channel, ChannelMessage
from tocsin_server.core.form import PLAIN, WITH_DELTA, Form
from tocsin_server.core.positions import History
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ClientInfo, Position, PresenceChange, Publication, Push

EPOCH = "abcdefgh"
JOIN = Push("news", join=PresenceChange(ClientInfo("ada", "c1")))
SIMILAR = "x" * 40


class Framing:
    """Packs messages as lines."""

    codec = JSON

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> list[bytes]:
        """Return the lines."""
        return [message.encoded(JSON) for message in messages]


FRAMING = Framing()


class DeltaClient:
    """A client that applies deltas. `received` are the numbers it got, each with `delta` or `whole`."""

    framing = FRAMING

    def __init__(self) -> None:
        self.received: list[tuple[int, str]] = []
        self.payloads: list[bytes] = []
        self.bases: list[bytes] = []

    @property
    def write(self) -> Callable[[Any], object]:
        """What a channel calls."""
        return self._receive

    def _receive(self, payload: list[bytes]) -> None:
        self.payloads += payload
        for push in map(json.loads, payload):
            if "pub" not in push or not isinstance(push["pub"]["data"], str):
                continue
            text, kind = push["pub"]["data"].encode(), "whole"
            if push["pub"].get("delta"):
                text, kind = apply_delta(self.bases[-1], text), "delta"
            self.bases.append(text)
            self.received.append((json.loads(text)["n"], kind))


def data(number: int, text: str = SIMILAR) -> Raw:
    return Raw(json.dumps({"text": text, "n": number}).encode())


class DeltaChannel:
    """A channel with history, and the publications that it receives."""

    def __init__(self) -> None:
        self.channel: Channel[Any] = Channel("news")
        self.channel.tracker.set(Position(0, EPOCH))
        self.kept: list[Publication] = []

    @property
    def top(self) -> int:
        return len(self.kept)

    def subscribe(
        self, form: Form = WITH_DELTA, *, receives_joins: bool = False, catches_up_from: int | None = None
    ) -> DeltaClient:
        client = DeltaClient()
        self.channel.begin_subscribe()
        since = self.top if catches_up_from is None else catches_up_from
        catches_up = catches_up_from is not None
        self.channel.go_live(client, since, receives_joins, form=form, catches_up=catches_up)
        return client

    def receive(self, *texts: str, may_be_delta: bool = True) -> None:
        for text in texts or (SIMILAR,):
            publication = Publication(data(self.top + 1, text), self.top + 1)
            self.kept.append(publication)
            self.channel.receive(publication, EPOCH, may_be_delta=may_be_delta)

    def deliver(self, *texts: str, may_be_delta: bool = True) -> None:
        self.receive(*texts, may_be_delta=may_be_delta)
        deliver_all(self.channel)


def test_the_first_publication_is_whole_and_the_next_ones_are_deltas() -> None:
    """Whether they leave in one batch or in several."""
    case = DeltaChannel()
    one = case.subscribe()
    case.deliver()
    case.deliver(SIMILAR, SIMILAR)
    two = case.subscribe()
    case.deliver(SIMILAR, SIMILAR)
    assert one.received == [(1, "whole"), (2, "delta"), (3, "delta"), (4, "delta"), (5, "delta")]
    assert two.received == [(4, "whole"), (5, "delta")]


def test_a_subscriber_without_deltas_gets_plain_data() -> None:
    """Of the same publications, in the same batch."""
    case = DeltaChannel()
    plain, other = case.subscribe(PLAIN), case.subscribe()
    case.deliver(SIMILAR, SIMILAR)
    assert [json.loads(line)["pub"]["data"]["n"] for line in plain.payloads] == [1, 2]
    assert other.received == [(1, "whole"), (2, "delta")]


def test_a_delta_that_is_not_smaller_is_sent_whole() -> None:
    """And is the base of the next one."""
    case = DeltaChannel()
    client = case.subscribe()
    case.deliver("Every word differs", SIMILAR, SIMILAR)
    assert client.received == [(1, "whole"), (2, "whole"), (3, "delta")]


def test_a_publication_without_delta_is_sent_whole() -> None:
    """Its publisher decides, or the namespace."""
    case = DeltaChannel()
    client = case.subscribe()
    case.deliver()
    case.deliver(may_be_delta=False)
    case.deliver()
    assert client.received == [(1, "whole"), (2, "whole"), (3, "delta")]


def test_joins_are_no_base() -> None:
    """A subscriber that got only joins still gets its first publication whole."""
    case = DeltaChannel()
    early = case.subscribe(receives_joins=True)
    case.deliver()
    late = case.subscribe(receives_joins=True)
    case.channel.receive_join_leave(JOIN)
    deliver_all(case.channel)
    case.channel.receive_join_leave(JOIN)
    case.deliver()
    assert early.received == [(1, "whole"), (2, "delta")]
    assert late.received == [(2, "whole")]
    assert len(late.payloads) == 3


def test_what_is_queued_when_a_subscriber_goes_live_is_not_its_base() -> None:
    """It is not delivered that. Its own first publication is whole, in the batch of the others."""
    case = DeltaChannel()
    early = case.subscribe()
    case.receive()
    late = case.subscribe()
    case.receive()
    deliver_all(case.channel)
    case.deliver()
    assert early.received == [(1, "whole"), (2, "delta"), (3, "delta")]
    assert late.received == [(2, "whole"), (3, "delta")]


def test_what_was_kept_for_a_slow_client_is_whole() -> None:
    """So is the next one: between those that are kept, others may be missing."""
    case = DeltaChannel()
    client, other = case.subscribe(), case.subscribe()
    case.deliver()
    case.channel.keep_aside(client, ChannelOptions(slow_policy="latest"))
    case.deliver(SIMILAR, SIMILAR)
    kept = case.channel.release(client)
    assert kept is not None
    client.write(FRAMING.pack("news", kept.messages))
    case.deliver()
    case.deliver()
    assert client.received == [(1, "whole"), (3, "whole"), (4, "whole"), (5, "delta")]
    assert other.received == [(1, "whole"), *((number, "delta") for number in (2, 3, 4, 5))]


def test_pages_of_a_recovery_are_whole() -> None:
    case = DeltaChannel()
    case.deliver(SIMILAR, SIMILAR, SIMILAR)
    client = case.subscribe(catches_up_from=1)
    page = case.channel.catch_up(client, History(Position(3, EPOCH), case.kept[1:3]))
    client.write(FRAMING.pack("news", page.messages))
    case.deliver(SIMILAR, SIMILAR)
    assert client.received == [(2, "whole"), (3, "whole"), (4, "whole"), (5, "delta")]


def test_backfilled_publications_are_whole() -> None:
    """History does not say which may be deltas. The first one after them is a delta to the last of them."""
    case = DeltaChannel()
    client = case.subscribe()
    case.deliver()
    for number in (2, 3):
        case.kept.append(Publication(data(number), number))
        case.channel.receive(case.kept[-1], EPOCH)
    deliver_all(case.channel)
    case.deliver()
    assert client.received == [(1, "whole"), (2, "whole"), (3, "whole"), (4, "delta")]


def test_a_delta_is_made_once_for_all_subscribers() -> None:
    """Those of one framing get the same object."""
    case = DeltaChannel()
    clients = [case.subscribe() for _ in range(5)]
    case.deliver()
    case.receive()
    ((_, subscribers, messages),) = case.channel.take_batch().recipients
    assert len(subscribers) == len(clients)
    (message,) = messages
    assert message.encoded(JSON) is message.encoded(JSON)
    assert json.loads(message.encoded(JSON))["pub"]["delta"] is True


def test_without_subscribers_that_use_deltas_no_base_is_kept() -> None:
    """A large payload is not held for nothing."""
    case = DeltaChannel()
    case.subscribe(PLAIN)
    client = case.subscribe()
    case.deliver()
    assert case.channel._base == case.kept[-1].data
    case.channel.unsubscribe(client)
    case.deliver()
    assert case.channel._base is None


def test_deltas_are_cut_between_characters() -> None:
    """JSON carries them as text, and every part of that is valid UTF-8."""
    case = DeltaChannel()
    client = case.subscribe()
    for number in range(1, 12):
        case.channel.receive(
            Publication(Raw(b'{"n":%d,"text":%b}' % (number, payload("é" * (number % 4), number))), number),
            EPOCH,
            may_be_delta=True,
        )
        deliver_all(case.channel)
    assert [number for number, _ in client.received] == list(range(1, 12))
    assert sum(kind == "delta" for _, kind in client.received) > 3
