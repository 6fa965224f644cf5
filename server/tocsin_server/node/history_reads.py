"""Reads of histories for subscriptions that are being set up. Clients that need the same part share one read.

    first client: slot -> read -> everyone's result
    others while it is read: wait for that result, without a slot, and get it a few at a time

A crowd of clients that comes back needs the same part of the same channels, and the read of the first is as
good for the others: what was published since it began is held for all of them, or delivered to them. A read
belongs to one `Channel`, so that it never serves a client of a later one with the same name.

The mutable state is the reads in progress, with the clients that wait for their results. Only `HistoryReads`
changes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel import C, Channel
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import Broker, HistoryQuery
from tocsin_server.errors import EngineError
from tocsin_server.node.slots import WAIT_SECONDS, Slots

SHARED_AT_ONCE = 16
"""So many clients get a shared history in one turn of the event loop, about a millisecond of work."""

_Key = tuple[Channel[C], HistoryQuery]
_Waiting = list[asyncio.Future[History]]


class HistoryReads(Generic[C]):
    """Reads histories, in slots that the callers give back."""

    def __init__(self, broker: Broker, slots: Slots[C]) -> None:
        self._broker = broker
        self._slots = slots
        self._waiting: dict[_Key[C], _Waiting] = {}

    async def read(
        self,
        connection: C,
        channel: Channel[C],
        query: Callable[[], HistoryQuery],
        options: ChannelOptions,
        slot_bytes: int,
    ) -> tuple[History, int]:
        """Return a history, and the size of the connection's slot for it; 0 if it has none.

        `query` is called again after a wait for a slot, since the client's room may have changed. A read
        without publications needs no slot: `slot_bytes` is 0. Raises EngineError, and TimeoutError if no slot
        is free in time. Then the connection has no slot.
        """
        wanted = query()
        shared = self._join(channel, wanted)
        if shared is None and slot_bytes and not self._slots.take_now(connection, slot_bytes):
            await self._slots.wait(connection, WAIT_SECONDS, slot_bytes)
            wanted = query()
            shared = self._join(channel, wanted)
            if shared is not None:
                self._slots.give_back(connection, slot_bytes)
        if shared is not None:
            return await shared, 0
        try:
            return await self._read(channel, wanted, options), slot_bytes
        except BaseException:
            if slot_bytes:
                self._slots.give_back(connection, slot_bytes)
            raise

    def _join(self, channel: Channel[C], query: HistoryQuery) -> asyncio.Future[History] | None:
        """Return the future result of this read, if it is in progress."""
        waiting = self._waiting.get((channel, query))
        if waiting is None:
            return None
        result: asyncio.Future[History] = asyncio.get_running_loop().create_future()
        waiting.append(result)
        return result

    async def _read(self, channel: Channel[C], query: HistoryQuery, options: ChannelOptions) -> History:
        key = (channel, query)
        self._waiting[key] = []
        try:
            history = await self._broker.read_history(channel.name, query, options)
        except BaseException as error:
            failure = error if isinstance(error, Exception) else EngineError("the read was cancelled")
            _hand_out(self._waiting.pop(key), lambda result: result.set_exception(failure))
            raise
        _hand_out(self._waiting.pop(key), lambda result: result.set_result(history))
        return history


def _hand_out(waiting: _Waiting, settle: Callable[[asyncio.Future[History]], None]) -> None:
    """Let the clients that wait go on, a few in each turn of the event loop."""
    for result in waiting[:SHARED_AT_ONCE]:
        if not result.done():
            settle(result)
    if rest := waiting[SHARED_AT_ONCE:]:
        asyncio.get_running_loop().call_soon(_hand_out, rest, settle)
