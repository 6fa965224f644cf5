"""An engine whose calls are timed and whose failures are counted, whichever it is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.engine import EngineServices
from tocsin_server.engine.nodes import ControlCommand, Survey, SurveyRequest
from tocsin_server.engine.presence import PresenceStats
from tocsin_server.errors import EngineError
from tocsin_server.metrics.registry import Metrics
from tocsin_server.protocol.messages import ClientInfo, Position, Push

Answer = TypeVar("Answer")


class Meter:
    """Measures calls by name."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.engine_call_seconds
        self._errors = metrics.engine_errors

    async def time(self, name: str, call: Awaitable[Answer]) -> Answer:
        """Await a call, and count what it took; and that it failed, if the engine could not do it."""
        started = time.monotonic()
        try:
            return await call
        except EngineError:
            self.count_error(name)
            raise
        finally:
            self.count(name, started)

    def count(self, name: str, started: float) -> None:
        """A call has ended."""
        self._seconds.of(name).observe(time.monotonic() - started)

    def count_error(self, name: str) -> None:
        """A call failed."""
        self._errors.add(name)


class MeteredBroker:
    """The broker of an engine, measured."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._meter = meter
        self._time = meter.time

    async def publish(self, channel: str, draft: NewPublication, options: ChannelOptions) -> Position:
        """Append and announce, as Broker says. Measured in place: this is called most."""
        started = time.monotonic()
        try:
            return await self._engine.broker.publish(channel, draft, options)
        except EngineError:
            self._meter.count_error("publish")
            raise
        finally:
            self._meter.count("publish", started)

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Announce a join or leave, as Broker says."""
        await self._time("publish_join_leave", self._engine.broker.publish_join_leave(channel, push))

    async def subscribe(self, channel: str) -> None:
        """Hear a channel, as Broker says."""
        await self._time("subscribe", self._engine.broker.subscribe(channel))

    async def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more."""
        await self._time("unsubscribe", self._engine.broker.unsubscribe(channel))

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a log, as Broker says."""
        return await self._time("read_history", self._engine.broker.read_history(channel, query, options))

    async def remove_history(self, channel: str) -> None:
        """Drop what a log keeps."""
        await self._time("remove_history", self._engine.broker.remove_history(channel))


class MeteredPresenceStore:
    """The presence of an engine, measured."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def add(self, channel: str, info: ClientInfo, is_announced: bool = False) -> None:
        """A connection of this node is in a channel."""
        await self._time("presence_add", self._engine.presence.add(channel, info, is_announced))

    async def remove(self, channel: str, client: str) -> None:
        """A connection of this node is no longer in a channel."""
        await self._time("presence_remove", self._engine.presence.remove(channel, client))

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Everybody in a channel."""
        return await self._time("presence_members", self._engine.presence.members(channel))

    async def stats(self, channel: str) -> PresenceStats:
        """How many are in a channel."""
        return await self._time("presence_stats", self._engine.presence.stats(channel))


class MeteredNodeRegistry:
    """The nodes of an engine, measured."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def publish_control(self, order: ControlCommand) -> None:
        """Every node obeys."""
        await self._time("control", self._engine.nodes.publish_control(order))

    async def survey(self, question: SurveyRequest) -> Survey:
        """Every living node answers."""
        return await self._time("survey", self._engine.nodes.survey(question))


class MeteredEngine:
    """What of an engine is called, measured. Whoever starts, stops or watches it does so without this."""

    def __init__(self, engine: EngineServices, metrics: Metrics) -> None:
        meter = Meter(metrics)
        self.broker = MeteredBroker(engine, meter)
        self.presence = MeteredPresenceStore(engine, meter)
        self.nodes = MeteredNodeRegistry(engine, meter)
