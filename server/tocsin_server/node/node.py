"""A node: carries out what its sessions ask for, and tells them what the engine says.

    transport --event--> session --effects--> node --> transport, hub, engine --event--> session …

Shared state changes in synchronous methods only. Where an effect needs the engine it becomes a task of the
node's own group, and the answer comes back as an event. Nothing here knows a socket, HTTP or Redis.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import structlog
from msgspec import Struct

from tocsin_server import __version__, errors
from tocsin_server.config.loading import Settings
from tocsin_server.core import events
from tocsin_server.core.authorization import SessionContext
from tocsin_server.core.channel import Channel, SubscriberConnection
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.events import Effect, Event, Send, SubscriptionPlan, Timestamp
from tocsin_server.core.glob import compile_glob
from tocsin_server.core.hub import Hub
from tocsin_server.core.positions import Continuity
from tocsin_server.core.session import Session
from tocsin_server.core.tokens import TokenVerifier
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.engine import Engine, EngineServices
from tocsin_server.engine.metered import MeteredEngine
from tocsin_server.engine.nodes import ControlCommand, Drain, NodeInfo, SurveyRequest
from tocsin_server.errors import Disconnect, EngineError, Refusal, Refused
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.backfill import Backfill
from tocsin_server.node.connection import Connection
from tocsin_server.node.deadlines import DeadlineQueue
from tocsin_server.node.fanout import FanOut
from tocsin_server.node.metrics import add_gauges, count_recoveries
from tocsin_server.node.operations import Operations, RpcMethod
from tocsin_server.node.subscribing import SubscriptionSetup
from tocsin_server.protocol.messages import (
    EMPTY,
    HistoryRequest,
    Message,
    Position,
    PresenceChange,
    PresenceRequest,
    PresenceStatsRequest,
    Publication,
    PublishRequest,
    Push,
    RpcRequest,
    RpcResult,
)

DRAIN_PAUSE_SECONDS = 0.02
"""At most this long between two peers of a node that drains: a handful of them is gone in a moment."""

STOP_SECONDS = 5.0
"""How long what is under way may take once the node stops: an application's method that hangs ends then."""

log = structlog.get_logger()


class Node:
    """One server process's share of the system. Use inside `async with node.running()`."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        rpc_methods: Mapping[str, RpcMethod] | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.uid = str(uuid.uuid4())
        self.name = settings.server.name or f"{socket.gethostname()}_{settings.server.port or self.uid[:4]}"
        self.address = ""
        """Where it listens, once somebody serves it."""
        self.on_drain_requested: Callable[[], None] = self._leave_host
        """Begin to leave on purpose. Whoever serves the node puts its own way to stop here."""
        self.metrics = Metrics()
        self.hub: Hub[Connection] = Hub()
        self.rules = ChannelRules(
            settings.channels, settings.namespaces, settings.client.channel_length_limit
        )
        self._services: EngineServices = MeteredEngine(engine, self.metrics)
        self.operations = Operations(self._services, self.rules, rpc_methods)
        self.fan_out = FanOut(self.metrics, self._drop_broken)
        self._house = SessionContext(
            settings.client,
            self.rules,
            TokenVerifier(settings.client),
            node=self.name,
            version=__version__,
            connections_of=lambda user: len(self.hub.connections_of(user)),
            rpc_methods=self.operations.rpc_methods,
        )
        self._connections: set[Connection] = set()
        self._deadlines: DeadlineQueue[Connection] = DeadlineQueue(
            self._on_deadline, lambda peer: peer.session.deadline, time.monotonic
        )
        self._backfill = Backfill(
            self._services.broker, self.rules, self.hub.channels, self._spawn, self._take_mended, self._break
        )
        self._subscription_setup = SubscriptionSetup(self._services, self.hub, self._break)
        self._started_at = time.monotonic()
        self._is_prepared = False
        self._is_draining = False
        self._tasks: asyncio.TaskGroup | None = None
        add_gauges(self.metrics, self.name, self.hub, self._connections, engine, lambda: self._is_draining)

    # --------------------------------------------------------------------------------------------------- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        """Serve while inside.

        On leaving, every remaining peer is told to come back elsewhere, and the engine is let go.
        """
        await self.prepare()
        try:
            async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as self._tasks:
                patrol = self._tasks.create_task(self._check_tops())
                try:
                    yield self
                finally:
                    patrol.cancel()
                    self._is_draining = True
                    self.disconnect_all(errors.SHUTDOWN)
                    self._deadlines.stop()
                    patience.reschedule(asyncio.get_running_loop().time() + STOP_SECONDS)
        except TimeoutError:
            log.warning("what was under way was cut short", seconds=STOP_SECONDS)
        finally:
            self._tasks = None
            self._is_prepared = False
            await self.engine.stop()

    async def _check_tops(self) -> None:
        if self.engine.may_lose_messages:
            await self._backfill.check_tops()

    async def prepare(self) -> None:
        """Reach the engine, which `running` does unless it was done.

        Raises EngineError, with a sentence for whoever starts it.
        """
        if not self._is_prepared:
            await self.engine.start(self)
            self._is_prepared = True

    @property
    def unready_reason(self) -> str:
        """Why this node is not ready, as a sentence; empty if it is: it can publish and it can hear."""
        if self._tasks is None:
            return "The node is not running."
        if self._is_draining:
            return "The node is draining: it sends its clients elsewhere, and stops."
        return self.engine.unready_reason

    def now(self) -> Timestamp:
        """This moment."""
        return Timestamp(time.monotonic(), time.time())

    def new_session(
        self, *, sends_pings: bool = True, wants_pong: bool = True, announces_pings: bool = True
    ) -> Session:
        """A session for a connection that has just been made."""
        return Session(
            self._house,
            str(uuid.uuid4()),
            self.now(),
            ping_phase=random.uniform(0.5, 1),  # noqa: S311 - spreads load, hides nothing
            sends_pings=sends_pings,
            wants_pong=wants_pong,
            announces_pings=announces_pings,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that belongs to nobody's call. Its failure is logged, and is nobody else's."""
        if self._tasks is None:
            work.close()
            return
        self._tasks.create_task(self._guard(work))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EngineError as error:
            log.warning("the engine could not do it", error=str(error))
        except Exception:
            log.exception("a task failed")

    # -------------------------------------------------------------------------------------------------- peers

    def attach(self, peer: Connection) -> None:
        """A connection was made. From here on `tell` is what moves it, and `Lost` what ends it."""
        self._connections.add(peer)
        self.metrics.connections.labels(peer.transport_name).inc()
        self._deadlines.update(peer)
        if self._is_draining or self._tasks is None:
            self.handle_event(peer, events.ServerDisconnect(errors.SHUTDOWN))

    def handle_event(self, peer: Connection, event: Event) -> None:
        """Give an event to a peer's session and do what it asks for. Never raises."""
        try:
            effects = peer.session.handle(event, self.now())
        except Exception:
            log.exception("a session failed", client=peer.session.client)
            effects = peer.session.handle(events.ServerDisconnect(errors.SERVER_ERROR), self.now())
            effects += peer.session.handle(event, self.now())  # once more: closed, it leaves what it entered
        if isinstance(event, events.Received):
            self.metrics.received_bytes.count += len(event.message)
        elif isinstance(event, events.SubscriptionsOpened):
            count_recoveries(self.metrics, peer.transport_name, effects)
        self._carry_out(peer, effects)
        if peer.session.is_closed:
            self._detach(peer)
        else:
            self._deadlines.update(peer)
            peer.pause_reading(bool(peer.session.backlog))

    def _detach(self, peer: Connection) -> None:
        if peer in self._connections:
            self._connections.discard(peer)
            self.metrics.connections.labels(peer.transport_name).dec()
            self._deadlines.remove(peer)
            self.hub.remove(peer)

    async def drain(self, seconds: float, is_hurried: Callable[[], bool]) -> int:
        """Leave on purpose: not ready from now on, and every peer is told to come back elsewhere.

        They are told one after the other, over `seconds` if they are many, so that the other nodes do not
        meet them all at once; `is_hurried` is asked before each whether the rest must go at once. Answers how
        many were told.
        """
        self._is_draining = True
        peers = list(self._connections)
        random.shuffle(peers)
        pause = min(DRAIN_PAUSE_SECONDS, seconds / max(1, len(peers)))
        started = time.monotonic()
        for number, peer in enumerate(peers):
            self.handle_event(peer, events.ServerDisconnect(errors.SHUTDOWN))
            ahead = started + number * pause - time.monotonic()
            if not is_hurried() and ahead > 0:
                await asyncio.sleep(ahead)
        log.info("drained", connections=len(peers), seconds=round(time.monotonic() - started, 3))
        return len(peers)

    def _leave_host(self) -> None:
        """Send the clients elsewhere; the application that this node is mounted in lives on."""
        self._spawn(self._drain_host())

    async def _drain_host(self) -> None:
        await self.drain(self.settings.server.drain_seconds, lambda: False)

    def disconnect_all(self, why: Disconnect) -> None:
        """Close every connection of this node."""
        for peer in list(self._connections):
            self.handle_event(peer, events.ServerDisconnect(why))

    def _on_deadline(self, peer: Connection) -> None:
        self.handle_event(peer, events.DeadlineReached())

    def _drop_broken(self, listener: SubscriberConnection) -> None:
        self.handle_event(cast("Connection", listener), events.ServerDisconnect(errors.SERVER_ERROR))

    # ------------------------------------------------------------------------------------------------ effects

    def _carry_out(self, peer: Connection, effects: Sequence[Effect]) -> None:
        messages: list[Message] = []
        for effect in effects:
            if isinstance(effect, Send):
                messages.append(effect.message)
                continue
            if messages:
                peer.send(messages)
                messages = []
            self._ON_EFFECT[type(effect)](self, peer, effect)
        if messages:
            peer.send(messages)

    def _close(self, peer: Connection, effect: events.Close) -> None:
        self.metrics.count_close(effect.why.code)
        log.info("closed", client=peer.session.client, code=effect.why.code, reason=effect.why.reason)
        peer.close(effect.why)

    def _identify(self, peer: Connection, effect: events.Identify) -> None:
        self.hub.identify(peer, effect.user)
        options = self.settings.client
        if options.personal_channel and options.personal_channel_single_connection and effect.user:
            self._spawn(self._keep_only(peer))

    async def _keep_only(self, peer: Connection) -> None:
        """Close the user's other connections, unless one of those made at the same time was quicker."""
        if not peer.session.is_closed:
            others = events.ServerDisconnect(errors.CONNECTION_LIMIT)
            await self.operations.control(
                ControlCommand(peer.session.user, others, exclude_clients=(peer.session.client,))
            )

    def _enter(self, peer: Connection, effect: events.OpenSubscriptions) -> None:
        for entry in effect.plans:
            self.hub.begin_subscribe(entry.channel)
        self._spawn(self._enter_all(peer, effect.plans))

    async def _enter_all(self, peer: Connection, entries: Sequence[SubscriptionPlan]) -> None:
        channels = [entry.channel for entry in entries]
        outcome: Event = events.SubscriptionsFailed(channels)
        try:
            outcome = await self._subscription_setup.open(entries)
        except EngineError as error:
            log.warning("could not subscribe", channels=channels, error=str(error))
        except Exception:
            log.exception("a subscription failed", client=peer.session.client)
        self.handle_event(peer, outcome)

    def _open(self, peer: Connection, effect: events.GoLive) -> None:
        self.hub.channels[effect.channel].go_live(peer, effect.start, effect.receives_joins)

    def _announce(self, _peer: Connection, effect: events.PublishJoin) -> None:
        joined = Push(effect.channel, join=PresenceChange(effect.info))
        self._spawn(self._services.broker.publish_join_leave(effect.channel, joined))

    def _leave(self, peer: Connection, effect: events.CloseSubscription) -> None:
        if self.hub.unsubscribe(peer, effect.channel):
            self._spawn(self._forget(effect.channel))
        if effect.options.presence:
            self._spawn(self._services.presence.remove(effect.channel, effect.info.client))
        if effect.was_announced:
            left = Push(effect.channel, leave=PresenceChange(effect.info))
            self._spawn(self._services.broker.publish_join_leave(effect.channel, left))

    async def _forget(self, name: str) -> None:
        if name not in self.hub.channels:  # nobody came back meanwhile; the broker keeps the order of calls
            await self._services.broker.unsubscribe(name)

    def _ask(self, peer: Connection, effect: events.Execute) -> None:
        self._spawn(self._answer(peer, effect))

    async def _answer(self, peer: Connection, ask: events.Execute) -> None:
        outcome: Struct | Refusal = errors.INTERNAL_ERROR
        try:
            outcome = await self._do(ask)
        except Refused as error:
            outcome = error.refusal
        except EngineError as error:
            log.warning("could not answer a command", error=str(error))
        except Exception:
            log.exception("a command failed", client=peer.session.client)
        self.handle_event(peer, events.Executed(ask.id, outcome))

    async def _do(self, ask: events.Execute) -> Struct:
        match ask.request:
            case PublishRequest(channel, data):
                await self.publish(channel, NewPublication(data, info=ask.info))
                return EMPTY
            case HistoryRequest(channel, limit, since, reverse):
                cap = self.settings.client.history_limit
                return await self.operations.history(channel, limit, since, reverse, cap)
            case PresenceRequest(channel):
                return await self.operations.presence(channel)
            case PresenceStatsRequest(channel):
                return await self.operations.presence_stats(channel)
            case RpcRequest(method, data):
                return RpcResult(await self.operations.rpc(ask.info.user, method, data))

    async def publish(self, channel: str, draft: NewPublication) -> Position:
        """Publish, once there is room: whoever publishes faster than this node can write waits.

        Raises Refused or EngineError.
        """
        found = self.hub.channels.get(channel)
        if found is not None:
            await self.fan_out.wait_for_room(found)
        position = await self.operations.publish(channel, draft)
        self.metrics.publications.count += 1
        return position

    # ----------------------------------------------------------------------------------- what the engine says

    def on_publication(self, channel: str, publication: Publication, epoch: str, published_at: float) -> None:
        """A publication was announced."""
        found = self.hub.channels.get(channel)
        if found is None:
            return
        verdict = found.receive(publication, epoch, published_at)
        if verdict in (Continuity.GAP, Continuity.OTHER_EPOCH):
            self._backfill.request(found)
        self.fan_out.wake(found)

    def on_resubscribed(self, channels: Collection[str]) -> None:
        """The link to these channels is whole again; what was announced meanwhile was not heard."""
        self._backfill.request_all(channels)

    def _take_mended(self, channel: Channel, publications: int) -> None:
        self.metrics.mended.count += publications
        self.fan_out.wake(channel)

    def _break(self, channel: Channel, continued_from: Position) -> None:
        """Tell whoever follows positions that what is heard no longer continues what it was told."""
        for listener in channel.reset(continued_from):
            self.metrics.broken_streams.count += 1
            self.handle_event(cast("Connection", listener), events.ChannelReset(channel.name))

    def on_join_leave(self, channel: str, push: Push) -> None:
        """A join or a leave was announced."""
        found = self.hub.channels.get(channel)
        if found is not None:
            found.receive_join_leave(push)
            self.fan_out.wake(found)

    def on_control(self, order: ControlCommand) -> None:
        """Do to this node's connections of a user, or to the node, what the API asked for."""
        if isinstance(order.event, Drain):
            if order.event.node == self.uid:
                self._is_draining = True  # from now on, not once whoever serves it gets to it
                self.on_drain_requested()
            return
        for peer in self.hub.connections_of(order.user):
            client = peer.session.client
            if client not in order.exclude_clients and order.client in ("", client):
                self.handle_event(peer, order.event)

    def node_info(self, question: SurveyRequest) -> NodeInfo:
        """This node's own figures."""
        channels = {name: len(channel) for name, channel in self.hub.channels.items() if len(channel)}
        is_asked_for = compile_glob(question.pattern or "*").fullmatch
        wanted = {
            name: clients
            for name, clients in channels.items()
            if question.wants_channels and is_asked_for(name)
        }
        return NodeInfo(
            uid=self.uid,
            name=self.name,
            version=__version__,
            num_clients=len(self.hub),
            num_users=len(list(self.hub.users)),
            num_channels=len(channels),
            num_subs=sum(channels.values()),
            uptime=int(time.monotonic() - self._started_at),
            channels=wanted,
            address=self.address,
            state="draining" if self._is_draining else "deaf" if self.engine.unready_reason else "ready",
            memory_bytes=_resident_bytes(),
            lag_seconds=self.engine.lag_seconds,
        )

    _ON_EFFECT: ClassVar[dict[type, Callable[[Any, Connection, Any], None]]] = {
        events.Close: _close,
        events.Identify: _identify,
        events.OpenSubscriptions: _enter,
        events.GoLive: _open,
        events.PublishJoin: _announce,
        events.CloseSubscription: _leave,
        events.Execute: _ask,
    }


def _resident_bytes() -> int:
    """Memory this process holds, or 0 where the system does not say it this way."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
