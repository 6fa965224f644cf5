r"""One event stream: a session whose commands stood in its request, and the events that wait for its client.

    opening --every channel answered--> streaming --close, or the client goes--> ended
     \--anything refused--> refused: an HTTP status instead of a stream

While it opens, everything but the answers is held, so that it begins with a position in every channel.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    ErrorBody,
    Ping,
    Position,
    Push,
    Reply,
    ServerMessage,
    SubscribePush,
    SubscribeResult,
)
from tocsin_server.transports.outbox import Outbox
from tocsin_server.transports.sse.events import (
    BURST_FRAMING,
    KEEP_ALIVE,
    Burst,
    connect_event,
    disconnect_event,
    gap_event,
    opening_event,
    subscribe_event,
    unsubscribe_event,
)
from tocsin_server.transports.sse.last_event_id import read_position, write_position
from tocsin_server.transports.sse.refusal import StreamRefused
from tocsin_server.transports.sse.request import FIRST_SUBSCRIBE_ID, EventRequest

if TYPE_CHECKING:
    from tocsin_server.core.session import Session
    from tocsin_server.node.node import Node

CLOSE_SECONDS = 5.0
"""How long what waits for a client may take to leave once its stream is to end (as protocol §8)."""

RETRY_MILLISECONDS = (500, 5000)
"""A client comes back after a time drawn from this range when its stream opens, however that ends.

Ten thousand of a node that stops or dies return at about 10,000 / 4.5 s = 2,200 a second, instead of all at
once after the three seconds that browsers wait by themselves.
"""


class SseConnection:
    """A session, the channels of its request and what waits for its client."""

    __slots__ = (
        "_channel_indexes",
        "_held",
        "_held_bytes",
        "_is_connected",
        "_node",
        "_opened",
        "_places",
        "_request",
        "_results",
        "outbox",
        "session",
    )

    codec = JSON
    framing = BURST_FRAMING
    transport_name = "sse"

    def __init__(self, node: Node, session: Session, request: EventRequest) -> None:
        self._node = node
        self._request = request
        self._channel_indexes = {channel: index for index, channel in enumerate(request.channels)}
        self._places = list(map(write_position, request.since))
        self._results: dict[int, SubscribeResult] = {}
        self._held: list[Burst | Push] | None = []
        self._held_bytes = 0
        self._is_connected = False
        self.session = session
        self.outbox = Outbox(node.settings.client.queue_limit_bytes)
        self._opened: asyncio.Future[StreamRefused | None] = asyncio.get_running_loop().create_future()

    # ---------------------------------------------------------------------------------------- the node's side

    @property
    def queued_bytes(self) -> int:
        """What its outbox holds, and what is held until it begins."""
        return self.outbox.waiting_bytes + self._held_bytes

    def write(self, burst: Burst) -> None:
        """Write what the channel tells everybody."""
        if self._held is None:
            self._put(self._events_of(burst))
        else:
            self._hold(self._held, burst)

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Turn the session's messages into events."""
        for message in messages:
            if isinstance(message, Ping):
                self._put_own(KEEP_ALIVE)
            elif isinstance(message, Reply):
                self._take_reply(message)
            elif self._held is None:
                self._take_push(message.push)
            else:
                self._held.append(message.push)

    def close(self, why: Disconnect) -> None:
        """End the stream with an event that says why; a client that is too slow gets nothing else."""
        self._refuse(StreamRefused.by_close(why, is_connected=self._is_connected))
        if why is errors.SLOW:
            self.outbox.drop()
        farewell = disconnect_event(why)
        self._node.metrics.sent_bytes.count += len(farewell)
        self.outbox.put(farewell)
        self.outbox.end(within_seconds=CLOSE_SECONDS)

    def pause_reading(self, is_busy: bool) -> None:
        """Do nothing: an event stream's client sends nothing that could be held back."""

    # ------------------------------------------------------------------------------------------------ opening

    async def opened(self) -> None:
        """Wait until every channel is entered and the stream may begin. Raises StreamRefused."""
        why = await self._opened
        if why is not None:
            raise why

    @property
    def refusal(self) -> StreamRefused | None:
        """Why there will be no stream, as far as is known."""
        return self._opened.result() if self._opened.done() else None

    def _take_reply(self, reply: Reply) -> None:
        if reply.connect is not None:
            self._is_connected = True
            for channel, result in reply.connect.subs.items():
                if channel in self._channel_indexes:
                    self._results[self._channel_indexes[channel]] = result
            return
        index = reply.id - FIRST_SUBSCRIBE_ID
        if reply.error is not None:
            self._take_error(index, reply.error)
        elif reply.subscribe is None:
            return
        elif self._held is None:
            self._resume(index, reply.subscribe)
        else:
            self._results[index] = reply.subscribe
            self._begin_if_answered()

    def _take_error(self, index: int, error: ErrorBody) -> None:
        if self._held is None:
            # A channel could not be subscribed again after a break: the next request is judged as a whole
            self._tell_later(events.ServerDisconnect(errors.INSUFFICIENT_STATE))
        elif error.code == errors.ALREADY_SUBSCRIBED.code and index in self._results:
            self._begin_if_answered()  # the token subscribed it already, with the connect reply
        else:
            channel = self._request.channels[index] if index >= 0 else ""
            self._refuse(StreamRefused.by_error(error, channel))

    def _hold(self, held: list[Burst | Push], burst: Burst) -> None:
        held.append(burst)
        self._held_bytes += burst.size
        if self._held_bytes > self._node.settings.client.queue_limit_bytes:
            self._tell_later(events.ServerDisconnect(errors.SLOW))

    def _refuse(self, why: StreamRefused) -> None:
        if not self._opened.done():
            self._opened.set_result(why)

    def _begin_if_answered(self) -> None:
        """Write the position in every channel, what cannot be recovered, what can, and what was held."""
        if len(self._results) < len(self._places) or self._opened.done():
            return
        self._opened.set_result(None)
        held, self._held = self._held or [], None
        self._held_bytes = 0
        results = sorted(self._results.items())
        self._results = {}
        for index, result in results:
            if result.recovered or not self._places[index]:
                self._places[index] = _place(result)
        retry_milliseconds = random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - spreads load
        self._put_own(opening_event(self._places, retry_milliseconds))
        self._put_own(connect_event(self.session.client, self._node.name))
        for index, result in results:
            self._tell_loss(index, result)
        for index, result in results:
            self._write_missed(index, result)
        for item in held:
            if isinstance(item, Burst):
                self.write(item)
            else:
                self._take_push(item)

    # ---------------------------------------------------------------------------------------------- streaming

    def _resume(self, index: int, result: SubscribeResult) -> None:
        """Continue a channel that was subscribed again after a break."""
        self._tell_loss(index, result)
        self._write_missed(index, result)

    def _tell_loss(self, index: int, result: SubscribeResult) -> None:
        """Say what of a channel is lost, if its client wanted to recover and cannot."""
        since = read_position(self._places[index].decode())
        if since is None or not result.was_recovering or result.recovered:
            return
        self._places[index] = _place(result)
        to = Position(result.offset, result.epoch)
        self._put_own(gap_event(self._request.channels[index], since, to, self._places))

    def _write_missed(self, index: int, result: SubscribeResult) -> None:
        """Write what was recovered, however much: a client closed for it would come back for the same."""
        channel = self._request.channels[index]
        if result.publications:
            items = [
                ChannelMessage(Push(channel, pub=missed), result.epoch) for missed in result.publications
            ]
            self._put_own(self._events_of(Burst(channel, items)), is_owed=True)

    def _take_push(self, push: Push) -> None:
        index = self._channel_indexes.get(push.channel)
        if push.unsubscribe is not None:
            is_broken = push.unsubscribe.code == errors.UNSUBSCRIBED_INSUFFICIENT_STATE.code
            if is_broken and index is not None:
                command = self._request.subscribe(index, read_position(self._places[index].decode()))
                self._tell_later(events.Received([command]))
            else:
                self._put_own(unsubscribe_event(push.channel, push.unsubscribe.code, push.unsubscribe.reason))
        elif push.subscribe is not None:
            if index is not None:
                self._places[index] = _place(push.subscribe)
            self._put_own(subscribe_event(push.channel))
        elif push.pub is not None:
            epoch = "" if index is None else self._places[index].decode().partition("@")[2]
            self._put_own(self._events_of(Burst(push.channel, [ChannelMessage(push, epoch)])))

    def _events_of(self, burst: Burst) -> bytes:
        index = self._channel_indexes.get(burst.channel)
        if index is None or not self._places[index]:
            return burst.without_ids()
        return burst.move(self._places, index)

    def _put_own(self, event: bytes, *, is_owed: bool = False) -> None:
        """Write what only this stream is told; what all are is counted by whoever writes it to all."""
        self._node.metrics.sent_bytes.count += len(event)
        self._put(event, is_owed=is_owed)

    def _put(self, event: bytes, *, is_owed: bool = False) -> None:
        self.outbox.put(event, is_owed=is_owed)
        if self.outbox.is_overfull:
            self._tell_later(events.ServerDisconnect(errors.SLOW))

    def _tell_later(self, event: events.Event) -> None:
        """Tell the node, which is in the midst of telling us."""
        asyncio.get_running_loop().call_soon(self._node.handle_event, self, event)


def _place(result: SubscribeResult | SubscribePush) -> bytes:
    return write_position(Position(result.offset, result.epoch)) if result.positioned else b""
