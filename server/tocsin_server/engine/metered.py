"""Wraps any engine: measures the duration of its calls and counts their failures."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.delivery import FailingDelivery
from tocsin_server.core.positions import History
from tocsin_server.core.revocations import Revocation
from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.broker import HistoryQuery, IdempotencyKey, NewPublication
from tocsin_server.engine.deliveries import DeadLetter, DeadLetterLimits, StoredDeadLetter
from tocsin_server.engine.engine import EngineServices
from tocsin_server.engine.nodes import ControlCommand, Survey, SurveyRequest
from tocsin_server.engine.presence import PresenceStats
from tocsin_server.errors import EngineError
from tocsin_server.metrics.instruments import Durations
from tocsin_server.metrics.registry import Metrics
from tocsin_server.protocol.messages import ClientInfo, Position, Push

Result = TypeVar("Result")


class Meter:
    """Measures calls by name: the value of the metric label `call`."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.engine_call_seconds
        self._errors = metrics.engine_errors

    async def time(self, name: str, call: Awaitable[Result]) -> Result:
        """Await a call, record its duration, and count it as failed if it raises EngineError."""
        started = time.monotonic()
        try:
            return await call
        except EngineError:
            self.count_error(name)
            raise
        finally:
            self.durations_of(name).observe(time.monotonic() - started)

    def durations_of(self, name: str) -> Durations:
        """The recorded durations of one kind of call."""
        return self._seconds.of(name)

    def count_error(self, name: str) -> None:
        """Count a failed call."""
        self._errors.add(name)


class MeteredBroker:
    """Measures the calls of an engine's broker. Each method does what Broker describes."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._broker = engine.broker
        self._meter = meter
        self._time = meter.time
        self._publish_seconds = meter.durations_of("publish")
        self._subscribe_seconds = meter.durations_of("subscribe")
        self._unsubscribe_seconds = meter.durations_of("unsubscribe")
        self._read_history_seconds = meter.durations_of("read_history")

    async def publish(self, channel: str, publication: NewPublication, options: ChannelOptions) -> Position:
        """Publish."""
        begun = self.begin_publish(channel, publication, options)
        return begun if isinstance(begun, Position) else await begun

    def begin_publish(
        self, channel: str, publication: NewPublication, options: ChannelOptions
    ) -> Position | EagerFuture[Position]:
        """Publish, at once if the engine can."""
        started = time.monotonic()
        try:
            begun = self._broker.begin_publish(channel, publication, options)
        except EngineError:
            self._meter.count_error("publish")
            self._publish_seconds.observe(time.monotonic() - started)
            raise
        if type(begun) is Position:
            self._publish_seconds.observe(time.monotonic() - started)
            return begun
        return begun.always(self._publish_ended, started)

    def _publish_ended(self, started: float, error: BaseException | None) -> None:
        if error is not None and isinstance(error, EngineError):
            self._meter.count_error("publish")
        self._publish_seconds.observe(time.monotonic() - started)

    async def expire_keys(self, keys: Sequence[IdempotencyKey]) -> None:
        """Let idempotency keys expire."""
        await self._time("expire_keys", self._broker.expire_keys(keys))

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Publish a join or leave."""
        await self._time("publish_join_leave", self._broker.publish_join_leave(channel, push))

    async def subscribe(self, channel: str) -> None:
        """Subscribe the node to a channel."""
        await self._time("subscribe", self._broker.subscribe(channel))

    def subscribe_now(self, channel: str) -> bool:
        """Subscribe at once, if the engine can."""
        started = time.monotonic()
        is_subscribed = self._broker.subscribe_now(channel)
        if is_subscribed:
            self._subscribe_seconds.observe(time.monotonic() - started)
        return is_subscribed

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe the node from a channel."""
        await self._time("unsubscribe", self._broker.unsubscribe(channel))

    def unsubscribe_now(self, channel: str) -> bool:
        """Unsubscribe at once, if the engine can."""
        started = time.monotonic()
        is_unsubscribed = self._broker.unsubscribe_now(channel)
        if is_unsubscribed:
            self._unsubscribe_seconds.observe(time.monotonic() - started)
        return is_unsubscribed

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a channel's history."""
        return await self._time("read_history", self._broker.read_history(channel, query, options))

    def read_history_now(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History | None:
        """Read a channel's history at once, if the engine can."""
        started = time.monotonic()
        history = self._broker.read_history_now(channel, query, options)
        if history is not None:
            self._read_history_seconds.observe(time.monotonic() - started)
        return history

    async def remove_history(self, channel: str) -> None:
        """Remove a channel's stored publications."""
        await self._time("remove_history", self._broker.remove_history(channel))


class MeteredPresenceStore:
    """Measures the calls of an engine's presence store. Each method does what PresenceStore describes."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def add(self, channel: str, info: ClientInfo, is_announced: bool = False, limit: int = 0) -> None:
        """Add or replace a presence entry."""
        await self._time("presence_add", self._engine.presence.add(channel, info, is_announced, limit))

    async def remove(self, channel: str, client: str) -> None:
        """Remove a presence entry."""
        await self._time("presence_remove", self._engine.presence.remove(channel, client))

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Read the presence entries of a channel."""
        return await self._time("presence_members", self._engine.presence.members(channel))

    async def stats(self, channel: str) -> PresenceStats:
        """Count the clients and users in a channel."""
        return await self._time("presence_stats", self._engine.presence.stats(channel))


class MeteredNodeRegistry:
    """Measures the calls of an engine's node registry. Each method does what NodeRegistry describes."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def publish_control(self, command: ControlCommand) -> None:
        """Send a control command to every node."""
        await self._time("control", self._engine.nodes.publish_control(command))

    async def survey(self, request: SurveyRequest) -> Survey:
        """Survey every live node."""
        return await self._time("survey", self._engine.nodes.survey(request))


class MeteredUserConnections:
    """Measures the calls that count users' connections. Each method does what UserConnections describes."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def add(self, user: str, client: str, limit: int) -> None:
        """Add a connection of a user."""
        await self._time("user_add", self._engine.users.add(user, client, limit))

    async def remove(self, user: str, client: str) -> None:
        """Remove a connection of a user."""
        await self._time("user_remove", self._engine.users.remove(user, client))


class MeteredRevocationStore:
    """Measures the calls of an engine's revocation store. Each method does what RevocationStore describes."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def add(self, revocation: Revocation) -> None:
        """Keep a revocation."""
        await self._time("revoke", self._engine.revocations.add(revocation))


class MeteredForwarding:
    """Measures the calls of an engine's forwarding. Each method does what Forwarding describes."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def forward(self, node: str, session: bytes, data: bytes) -> bool:
        """Hand commands to a session of another node."""
        return await self._time("forward", self._engine.forwarding.forward(node, session, data))


class MeteredDeliveryStore:
    """Measures the calls of an engine's delivery store. Each method does what DeliveryStore describes."""

    def __init__(self, engine: EngineServices, meter: Meter) -> None:
        self._engine = engine
        self._time = meter.time

    async def add_dead_letters(
        self, subscriber: str, letters: Sequence[DeadLetter], limits: DeadLetterLimits
    ) -> int:
        """Keep dead letters."""
        call = self._engine.deliveries.add_dead_letters(subscriber, letters, limits)
        return await self._time("dead_letters_add", call)

    async def read_dead_letters(
        self, subscriber: str, limit: int, after: str = ""
    ) -> Sequence[StoredDeadLetter]:
        """Read dead letters."""
        call = self._engine.deliveries.read_dead_letters(subscriber, limit, after)
        return await self._time("dead_letters_read", call)

    async def remove_dead_letters(self, subscriber: str, ids: Sequence[str]) -> int:
        """Remove dead letters."""
        call = self._engine.deliveries.remove_dead_letters(subscriber, ids)
        return await self._time("dead_letters_remove", call)

    async def count_dead_letters(self, subscriber: str) -> int:
        """Count dead letters."""
        return await self._time("dead_letters_count", self._engine.deliveries.count_dead_letters(subscriber))

    async def set_failing(self, subscriber: str, part: int, failing: FailingDelivery | None) -> None:
        """Keep or forget a failing delivery."""
        await self._time("failing_set", self._engine.deliveries.set_failing(subscriber, part, failing))

    async def failing(self, subscriber: str) -> Mapping[int, FailingDelivery]:
        """Read failing deliveries."""
        return await self._time("failing_read", self._engine.deliveries.failing(subscriber))


class MeteredEngine:
    """Measures the calls of an engine's services. The owner starts and stops the wrapped engine directly."""

    def __init__(self, engine: EngineServices, metrics: Metrics) -> None:
        meter = Meter(metrics)
        self.broker = MeteredBroker(engine, meter)
        self.presence = MeteredPresenceStore(engine, meter)
        self.nodes = MeteredNodeRegistry(engine, meter)
        self.users = MeteredUserConnections(engine, meter)
        self.revocations = MeteredRevocationStore(engine, meter)
        self.forwarding = MeteredForwarding(engine, meter)
        self.deliveries = MeteredDeliveryStore(engine, meter)
