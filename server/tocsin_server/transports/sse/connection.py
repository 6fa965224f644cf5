r"""One event stream: a session whose commands came with its request, and the events queued for its client.

    opening --every channel subscribed--> streaming --close, or the client disconnects--> ended
     \--a command or the connection refused--> refused: an HTTP status instead of a stream

While the stream opens, everything but the replies is held, so that its first event has a position in every
channel.

The mutable state is that of `SseConnection`: the stream's positions, the results of its subscribe commands
and the held messages (both only while it opens), and its send_queue. Only the node changes it, through the
methods of `Connection`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import ChannelMessage, encodable
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
    UnsubscribePush,
)
from tocsin_server.transports.sse.events import (
    EVENT_FRAMING,
    KEEP_ALIVE,
    EncodedBatch,
    connect_event,
    disconnect_event,
    gap_event,
    opening_event,
    subscribe_event,
    unsubscribe_event,
)
from tocsin_server.transports.sse.last_event_id import Element, StreamPositions
from tocsin_server.transports.sse.refusal import StreamRefused
from tocsin_server.transports.sse.request import FIRST_SUBSCRIBE_ID, EventRequest
from tocsin_server.transports.streams.streamed import StreamedConnection

if TYPE_CHECKING:
    from tocsin_server.core.session import Session
    from tocsin_server.node.connection import Connections

RETRY_MILLISECONDS = (500, 5000)
"""A client reconnects after a time drawn from this range when its stream opens, however the stream ends.

Ten thousand clients of a node that stops or dies return at about 10,000 / 4.5 s = 2,200 a second. Without
it they would all return after the three seconds that browsers wait by default.
"""


class SseConnection(StreamedConnection):
    """A session, its positions in the channels of the request, and the events queued for its client."""

    __slots__ = (
        "_channel_indexes",
        "_held",
        "_held_bytes",
        "_is_connected",
        "_opened",
        "_positions",
        "_request",
        "_results",
    )

    codec = JSON
    framing = EVENT_FRAMING
    transport_name = "sse"

    def __init__(self, connections: Connections, session: Session, request: EventRequest) -> None:
        super().__init__(connections, session)
        self._request = request
        self._channel_indexes = {channel: index for index, channel in enumerate(request.channels)}
        self._positions = StreamPositions(request.since)
        self._results: dict[int, SubscribeResult] = {}  # by index
        self._held: list[EncodedBatch | Push] | None = []  # None once the stream is open
        self._held_bytes = 0
        self._is_connected = False
        self._opened: asyncio.Future[StreamRefused | None] = asyncio.get_running_loop().create_future()

    # ---------------------------------------------------------------------------------------- the node's side

    @property
    def queued_bytes(self) -> int:
        """How many bytes the send_queue holds, and how many are held while the stream opens."""
        return self.send_queue.queued_bytes + self._held_bytes

    @property
    def is_behind(self) -> bool:
        """Whether more than BEHIND_BYTES are queued although the server sends, or the stream still opens."""
        return self._held is not None or self.send_queue.is_behind

    def write(self, batch: EncodedBatch) -> None:
        """Write a batch that is shared with the channel's other streams."""
        if self._held is None:
            self._put(self._encode(batch))
        else:
            self._hold(self._held, batch)

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write the session's messages as events."""
        for message in messages:
            if isinstance(message, Ping):
                self._keep_alive()
            elif isinstance(message, Reply):
                self._take_reply(message)
            elif self._held is None:
                self._send_push(message.push)
            else:
                self._held.append(message.push)

    def _keep_alive(self) -> None:
        """Write a comment, unless the client has taken nothing since the one before: then it is gone.

        The server's own sockets also notice a client that acknowledges nothing; those of a host may not.
        """
        if self.send_queue.take_stall():
            self._handle_later(events.ServerDisconnect(errors.NO_PONG))
        else:
            self._send_event(KEEP_ALIVE)

    def close(self, disconnect: Disconnect) -> None:
        """End the stream with a `disconnect` event. A slow client gets only that event."""
        self._refuse(StreamRefused.for_disconnect(disconnect, is_connected=self._is_connected))
        self._end_with(disconnect_event(disconnect), disconnect)

    def lose(self) -> None:
        """End the session, as StreamedConnection describes. A stream that opens is then awaited no longer."""
        super().lose()
        if not self._opened.done():
            self._opened.set_result(None)

    # ------------------------------------------------------------------------------------------------ opening

    async def opened(self) -> None:
        """Wait until every channel is subscribed and the stream is open. Raises StreamRefused."""
        refusal = await self._opened
        if refusal is not None:
            raise refusal

    @property
    def refusal(self) -> StreamRefused | None:
        """Why the stream does not open, if it is refused already."""
        return self._opened.result() if self._opened.done() else None

    def _refuse(self, refusal: StreamRefused) -> None:
        if not self._opened.done():
            self._opened.set_result(refusal)

    def _hold(self, held: list[EncodedBatch | Push], batch: EncodedBatch) -> None:
        is_full = self._held_bytes > self._connections.limits.queue_bytes  # one batch alone may exceed it
        held.append(batch)
        self._held_bytes += len(batch)
        if is_full:
            self._handle_later(events.ServerDisconnect(errors.SLOW))

    def _take_reply(self, reply: Reply) -> None:
        if reply.connect is not None:
            self._is_connected = True
            for channel, result in reply.connect.subs.items():
                if channel in self._channel_indexes:
                    self._results[self._channel_indexes[channel]] = result
                    self._held_bytes += sum(missed.size for missed in result.publications)
            return
        index = reply.id - FIRST_SUBSCRIBE_ID
        if reply.error is not None:
            self._take_error(index, reply.error)
        elif reply.subscribe is not None and self._held is None:
            self._send_gap(index, reply.subscribe)
            self._send_recovered(index, reply.subscribe)
        elif reply.subscribe is not None:
            self._results[index] = reply.subscribe
            self._held_bytes += sum(missed.size for missed in reply.subscribe.publications)
            self._open_if_subscribed()

    def _take_error(self, index: int, error: ErrorBody) -> None:
        if self._held is None:
            # After a reset the channel could not be subscribed: the client has to make its request again
            self._handle_later(events.ServerDisconnect(errors.INSUFFICIENT_STATE))
        elif error.code == errors.ALREADY_SUBSCRIBED.code and index in self._results:
            self._open_if_subscribed()  # the token subscribed it, and its result came with the connect reply
        else:
            channel = self._request.channels[index] if index >= 0 else ""
            self._refuse(StreamRefused.for_error(error, channel))

    def _open_if_subscribed(self) -> None:
        """Open the stream once every channel has a result.

        Its events come in this order: positions, connect, gaps, recovered publications, held messages.
        """
        if len(self._results) < len(self._request.channels) or self._opened.done():
            return
        self._opened.set_result(None)
        held, self._held = self._held or [], None
        self._held_bytes = 0
        results, self._results = sorted(self._results.items()), {}
        self._send_opening(results)
        for index, result in results:
            self._send_gap(index, result)
        for index, result in results:
            self._send_recovered(index, result)
        for item in held:
            if isinstance(item, EncodedBatch):
                self.write(item)
            else:
                self._send_push(item)
        self._connections.client_caught_up(self)

    def _send_opening(self, results: Sequence[tuple[int, SubscribeResult]]) -> None:
        for index, result in results:
            if result.recovered or self._positions.values[index] is None:
                self._positions.move(index, _element(result))
        retry_milliseconds = random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - spreads load
        self._send_event(opening_event(self._positions, retry_milliseconds))
        self._send_event(connect_event(self.session.client, self._connections.name))

    # ---------------------------------------------------------------------------------------------- streaming

    def _send_gap(self, index: int, result: SubscribeResult) -> None:
        """Send a `gap` event if the client has a position in a channel and could not recover from it.

        The session recovers from it, except in a channel that it subscribes by itself only once an authorizer
        has approved the connection. There the client has a gap unless its position is the top.
        """
        since, to = self._positions.values[index], Position(result.offset, result.epoch)
        is_at_top = result.positioned and since == to and not result.was_recovering
        if since is None or result.recovered or is_at_top:
            return
        self._positions.move(index, _element(result))
        self._send_event(gap_event(self._request.channels[index], since, to, self._positions))

    def _send_recovered(self, index: int, result: SubscribeResult) -> None:
        """Send the publications that the client missed.

        They are exempt from the queue limit: a client disconnected for them would only recover them again.
        """
        channel = self._request.channels[index]
        if result.publications:
            messages = [
                ChannelMessage(Push(channel, pub=missed), result.epoch) for missed in result.publications
            ]
            self._send_batch(channel, messages, exempt=True)

    def _send_push(self, push: Push) -> None:
        index = self._channel_indexes.get(push.channel)
        position = None if index is None else self._positions.values[index]
        if push.unsubscribe is not None:
            was_reset = push.unsubscribe.code == errors.UNSUBSCRIBED_INSUFFICIENT_STATE.code
            if was_reset and index is not None:
                command = self._request.subscribe_command(index, position)
                self._handle_later(events.Received([command]))
            else:
                self._take_unsubscribe(push.channel, push.unsubscribe)
        elif push.subscribe is not None:
            if index is not None:
                self._positions.move(index, _element(push.subscribe))
            self._send_event(subscribe_event(push.channel))
        elif push.pub is not None:
            message = ChannelMessage(push, position.epoch if position is not None else "")
            self._send_batch(push.channel, [message])

    def _take_unsubscribe(self, channel: str, why: UnsubscribePush) -> None:
        """Report the end of a subscription.

        Where a client would subscribe again, such as with a new token, an EventSource can only make its
        request again. So the stream ends, and the next request is served, or refused with a status.
        """
        self._send_event(unsubscribe_event(channel, why.code, why.reason))
        if why.code >= errors.UNSUBSCRIBED_INSUFFICIENT_STATE.code:
            self._handle_later(events.ServerDisconnect(errors.SUBSCRIPTION_EXPIRED))

    # ------------------------------------------------------------------------------------------------ writing

    def _encode(self, batch: EncodedBatch) -> bytes:
        index = self._channel_indexes.get(batch.channel)
        if index is None or self._positions.values[index] is None:
            return batch.without_ids()
        return batch.with_ids(self._positions, index)

    def _send_batch(self, channel: str, messages: Sequence[ChannelMessage], *, exempt: bool = False) -> None:
        """Write messages for this client alone. Its stream ends at the first that is no JSON (3506)."""
        readable = encodable(messages, JSON)
        if readable:
            self._send_event(self._encode(EncodedBatch(channel, readable)), exempt=exempt)
        if len(readable) < len(messages):
            self._handle_later(events.ServerDisconnect(errors.INAPPROPRIATE_PROTOCOL))

    def _send_event(self, event: bytes, *, exempt: bool = False) -> None:
        """Write an event for this client alone. Fan-out counts the bytes of the others."""
        self._connections.count_sent(len(event))
        self._put(event, exempt=exempt)


def _element(result: SubscribeResult | SubscribePush) -> Element:
    return Element.of(Position(result.offset, result.epoch) if result.positioned else None)
