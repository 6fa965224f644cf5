"""Catching up: what a client missed is read from history in pages, each when the client has taken the last.

    subscribe reply with the first page --> [client has room --> slot --> page] … --> live

So a recovery holds one page in memory, however long it is and however slowly the client reads. Meanwhile
what the channel receives is held for it, or read from history too.

The mutable state is the channels in which each connection catches up. Only `CatchUps` changes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.core.channel import CaughtUp, Channel
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.node_state import C, NodeState
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import Broker, HistoryQuery
from tocsin_server.errors import EngineError
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.node.slots import Slots
from tocsin_server.protocol.messages import Position


class CatchUps(Generic[C]):
    """Lets clients catch up, each by one task that ends when all its subscriptions have caught up.

    `spawn` runs a coroutine as a task of the node. `room_for(connection)` waits until the client has taken
    what is queued, or is closed. A page has at most `largest_bytes`. `deliver(connection, channel, messages)`
    writes it. `on_reset` is called where history no longer holds what the client missed.
    """

    def __init__(  # noqa: PLR0913 - each collaborator is an argument
        self,
        broker: Broker,
        rules: ChannelRules,
        state: NodeState[C],
        slots: Slots[C],
        limits: ClientOptions,
        largest_bytes: int,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        room_for: Callable[[C], Awaitable[None]],
        deliver: Callable[[C, Channel[C], CaughtUp], None],
        on_reset: Callable[[C, str], None],
    ) -> None:
        self._broker = broker
        self._rules = rules
        self._state = state
        self._slots = slots
        self._limits = limits
        self._largest_bytes = largest_bytes
        self._spawn = spawn
        self._room_for = room_for
        self._deliver = deliver
        self._on_reset = on_reset
        self._channels: dict[C, list[str]] = {}
        self._log = SampledLog()

    def begin(self, connection: C, channel: str) -> None:
        """Let a connection catch up in a channel."""
        if connection in self._channels:
            self._channels[connection].append(channel)
        else:
            self._channels[connection] = [channel]
            self._spawn(self._run(connection))

    async def _run(self, connection: C) -> None:
        names = self._channels[connection]
        name = ""
        try:
            while names:
                name = names.pop(0)
                await self._room_for(connection)
                if await self._read_page(connection, name):
                    names.append(name)  # after the others: channels take turns too
        except Exception:  # noqa: BLE001 - a defect: the client subscribes again, rather than wait for ever
            self._log.write("catch_up_raised", level="error", exc_info=True, channel=name)
            for left in (name, *names):
                self._on_reset(connection, left)
        finally:
            del self._channels[connection]

    async def _read_page(self, connection: C, name: str) -> bool:
        """Read and write one page. Returns whether there is more."""
        options = self._rules.options_for(name)
        async with self._slots.slot(connection, size=self._largest_bytes):
            channel, since = self._state.hub.channels.get(name), None
            if channel is not None:
                since = channel.catching_up_from(connection)
            if channel is None or since is None or options is None:
                return False  # it has unsubscribed
            page = await self._read(name, since, options)
            if self._state.hub.channels.get(name) is not channel:
                return False
            if channel.catching_up_from(connection) != since:
                return channel.catching_up_from(connection) is not None
            if page is None:
                self._on_reset(connection, name)
                return False
            may_skip = options.force_recovery_mode == "cache"
            added = channel.catch_up(connection, page, may_skip=may_skip)
            if added.has_gap:
                self._on_reset(connection, name)
                return False
            self._deliver(connection, channel, added)
            return not added.is_complete

    async def _read(self, name: str, since: int, options: ChannelOptions) -> History | None:
        query = HistoryQuery(
            Position(since, ""), self._limits.history_limit, limit_bytes=self._limits.recovery_page_bytes
        )
        try:
            return await self._broker.read_history(name, query, options)
        except EngineError as error:
            self._log.write("catch_up_failed", level="warning", channel=name, error=str(error))
            return None
