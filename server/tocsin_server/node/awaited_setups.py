"""Subscriptions whose set-up a caller of the HTTP API waits for.

A channel may have no history. So a publication after the answer to `subscribe` reaches the client only if the
subscription is live by then.

The mutable state is a future for each awaited set-up, by connection and channel. Only the methods of
`AwaitedSetups` change it.
"""

from __future__ import annotations

import asyncio
from typing import Generic

from tocsin_server.core.node_state import C


class AwaitedSetups(Generic[C]):
    """Says when subscriptions are live, or will not become live."""

    def __init__(self) -> None:
        self.by_connection: dict[C, dict[str, asyncio.Future[None]]] = {}
        """The awaited set-ups. Nothing must be done for a connection that is not in it."""

    def end_of(self, connection: C, channel: str) -> asyncio.Future[None] | None:
        """Return what is done once a set-up has ended. None: none is under way."""
        if not connection.session.is_setting_up(channel):
            return None
        channels = self.by_connection.setdefault(connection, {})
        if channel not in channels:
            channels[channel] = asyncio.get_running_loop().create_future()
        return channels[channel]

    def settle(self, connection: C) -> None:
        """Find out which set-ups of a connection have ended. Must follow each event of its session."""
        channels = self.by_connection.get(connection, {})
        for channel in [one for one in channels if not connection.session.is_setting_up(one)]:
            channels.pop(channel).set_result(None)
        if not channels:
            self.by_connection.pop(connection, None)
