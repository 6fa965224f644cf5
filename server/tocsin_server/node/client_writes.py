"""What a node writes to single clients: messages of sessions, pages of recoveries, and what was kept aside.

Where a codec cannot encode a message, its connection is closed. Writes to all subscribers of a channel are in
`FanOut`. The module has no state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import CaughtUp, Channel, ChannelMessage, encodable
from tocsin_server.core.events import Event
from tocsin_server.core.node_state import NodeState
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.connection import Connection
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.protocol.messages import ServerMessage
from tocsin_server.protocol.payloads import PayloadNotJson


class ClientWrites:
    """Writes to single clients.

    `on_reset(connection, channel)` is called where a client misses publications of a channel.
    """

    def __init__(
        self,
        state: NodeState[Connection],
        metrics: Metrics,
        sampled_log: SampledLog,
        *,
        handle_event: Callable[[Connection, Event], None],
        on_reset: Callable[[Connection, str], None],
    ) -> None:
        self._state = state
        self._metrics = metrics
        self._sampled_log = sampled_log
        self._handle_event = handle_event
        self._on_reset = on_reset

    def write_kept(self, connection: Connection) -> None:
        """Write what was kept aside for a client, channel by channel, until it is behind again.

        If messages of a channel were dropped, a client with a position subscribes again instead, and
        recovers or is told of the gap.
        """
        for name, options in connection.session.live_options:
            kept = None
            # None: the reset of another let a command leave this one
            channel = self._state.hub.channels.get(name)
            if channel is not None and not connection.is_behind and options.slow_policy != "disconnect":
                kept = channel.release(connection)
            if kept is None:
                continue
            self._metrics.count_undelivered(options.slow_policy, kept.dropped + kept.superseded)
            if kept.dropped and connection.session.has_position_in(name):
                self._on_reset(connection, name)
            elif kept.messages:
                self._pack_for(connection, name, kept.messages)

    def deliver_page(self, connection: Connection, channel: Channel[Connection], added: CaughtUp) -> None:
        """Write a page of a recovery."""
        if added.messages:
            count = self._pack_for(connection, channel.name, added.messages)
            self._metrics.recovered_publications.count += count

    def _pack_for(self, connection: Connection, name: str, messages: Sequence[ChannelMessage]) -> int:
        """Write messages of a channel to one connection; return how many its codec could encode."""
        framing = connection.framing
        readable = encodable(messages, framing.codec)
        if readable:
            payload = framing.pack(name, readable)
            connection.write(payload)
            self._metrics.sent_bytes.count += len(payload)
        if len(readable) < len(messages):
            self._disconnect_later(connection)
        return len(readable)

    def send(self, connection: Connection, messages: Sequence[ServerMessage]) -> None:
        """Let a connection send messages, up to the first that its codec cannot encode."""
        try:
            connection.send(messages)
        except PayloadNotJson:
            self._send_readable(connection, messages)
        except (TypeError, ValueError):  # a value that no codec encodes; logged as an error
            self._sampled_log.fault("session_failed", client=connection.session.client)
            asyncio.get_running_loop().call_soon(self.disconnect_failed, connection)

    def _send_readable(self, connection: Connection, messages: Sequence[ServerMessage]) -> None:
        for message in messages:
            try:
                connection.send([message])
            except PayloadNotJson:
                self._disconnect_later(connection)
                return

    def disconnect_unreadable(self, connection: Connection) -> None:
        """Close a connection whose codec cannot encode a payload that it must be sent."""
        self._handle_event(connection, events.ServerDisconnect(errors.INAPPROPRIATE_PROTOCOL))

    def _disconnect_later(self, connection: Connection) -> None:
        """The same in the loop's next turn: this one is executing what the connection's session asks for."""
        asyncio.get_running_loop().call_soon(self.disconnect_unreadable, connection)

    def disconnect_failed(self, connection: Connection) -> None:
        """Close a connection to which a message could not be written."""
        self._handle_event(connection, events.ServerDisconnect(errors.SERVER_ERROR))
