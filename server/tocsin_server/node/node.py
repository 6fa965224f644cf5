"""A node: the parts of one server process, from its transports down to its engine, and their life cycle.

    transport --event--> Node, SessionIo --> sessions --> transport, engine
       engine --message--> EngineCallbacks --> channels, FanOut --> transports

State changes in synchronous steps only, most of them in `core/node_state.py`. Nothing here knows a socket,
HTTP or Redis.

The mutable state is `state` (connections, hub, channels), which `SessionIo` and `EngineCallbacks` change; and
when the node started, whether it drains, and what its server told it, which only `Node` changes.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tocsin_server import errors
from tocsin_server.config.loading import Settings
from tocsin_server.core import events
from tocsin_server.core.admission import Admission, NotAdmitted
from tocsin_server.core.channel import Channel
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.client_limits import ClientLimits
from tocsin_server.core.events import Event, Timestamp
from tocsin_server.core.glob import Glob
from tocsin_server.core.half_open import HalfOpen
from tocsin_server.core.hub import Hub
from tocsin_server.core.node_state import NodeState
from tocsin_server.core.revocations import Revocation
from tocsin_server.core.session import Session
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.tokens import TokenVerifier
from tocsin_server.engine.engine import Engine, EngineServices
from tocsin_server.engine.metered import MeteredEngine
from tocsin_server.engine.nodes import NodeInfo, SurveyRequest
from tocsin_server.errors import Disconnect
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.authorizer import Authorizer
from tocsin_server.node.backfill import Backfill
from tocsin_server.node.channel_rules import channel_rules
from tocsin_server.node.client_request import KeptHeaders
from tocsin_server.node.connection import Connection, TransportLimits
from tocsin_server.node.current_step import CurrentStep
from tocsin_server.node.drain import drain
from tocsin_server.node.emulated_sessions import EmulatedSessions
from tocsin_server.node.engine_callbacks import EngineCallbacks
from tocsin_server.node.fanout import QUEUED_BYTES, FanOut
from tocsin_server.node.key_sets import KeySets
from tocsin_server.node.lifecycle import LifecycleWriter
from tocsin_server.node.metrics import add_gauges, add_lifecycle_gauges
from tocsin_server.node.new_sessions import NewSessions
from tocsin_server.node.node_tasks import NodeTasks
from tocsin_server.node.operations import Operations, RpcMethod
from tocsin_server.node.refusal_log import RefusalLog
from tocsin_server.node.revoking import TokenRevoker
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.node.services import Services
from tocsin_server.node.session_io import SessionIo
from tocsin_server.node.slices import in_slices
from tocsin_server.node.turns import TurnQueue
from tocsin_server.version import __version__


class Node:
    """One server process's share of the system. Use inside `async with node.running()`."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        rpc_methods: Mapping[str, RpcMethod] | None = None,
        authorizer: Authorizer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings
        self.limits = TransportLimits.of(settings)
        self.engine = engine
        self.uid = str(uuid.uuid4())
        self.name = settings.server.name or f"{socket.gethostname()}_{settings.server.port or self.uid[:4]}"
        self.address = ""
        """Host and port, set by the server that runs this node; empty without one."""
        self._on_drain_requested: Callable[[], None] = self._drain_mounted
        self.metrics = metrics or Metrics()
        self.state: NodeState[Connection] = NodeState()
        rules = channel_rules(settings)
        self.sampled_log = SampledLog()
        self._tasks = NodeTasks(self.sampled_log)
        step = CurrentStep()
        self._refusals = RefusalLog(self.sampled_log, self.metrics, step)
        engine_services: EngineServices = MeteredEngine(engine, self.metrics)
        self.delivery_store = engine_services.deliveries
        self.operations = Operations(
            engine_services, rules, self.metrics, self._room_in, rpc_methods, self.limit_reached
        )
        self._session_io = SessionIo(
            settings,
            engine_services,
            self.state,
            rules,
            operations=self.operations,
            tasks=self._tasks,
            metrics=self.metrics,
            sampled_log=self.sampled_log,
            refusals=self._refusals,
            step=step,
        )
        writes, handle_event = self._session_io.writes, self._session_io.handle_event
        self.fan_out: FanOut[Connection] = FanOut(
            self.metrics, writes.disconnect_failed, writes.disconnect_unreadable
        )
        tokens = TokenVerifier(settings.client, settings.issuers)
        self._key_sets = KeySets(tokens, self.metrics)
        self._revoker = TokenRevoker(
            settings,
            engine_services.revocations,
            self.state,
            handle_event=handle_event,
            spawn=self._tasks.spawn,
            limit_reached=self.limit_reached,
        )
        self._new_sessions = NewSessions(
            SessionContext(
                settings.client,
                rules,
                tokens,
                node=self.name,
                version=__version__,
                connections_of=lambda user: len(self.hub.connections_of(user)),
                channels=self.hub.channels,
                limits=ClientLimits(settings.client, settings.limits),
                report_refusal=self._refusals.client_refused,
                report_limit=self._refusals.client_limit_reached,
                rpc_methods=self.operations.rpc_methods,
                revocations=self._revoker.revocations,
            ),
            self._session_io.authorizations,
            self._key_sets,
            authorizer,
        )
        self.kept_headers: KeptHeaders | None = None
        """What connections keep of their requests; None: nothing, because no hook wants it."""
        self.services = Services()
        """What runs together with the node, such as deliveries and proxies."""
        self.admission = Admission(settings.limits)
        self.half_open = HalfOpen(settings.limits.half_open_limit, settings.limits.address_half_open_limit)
        self.emulated_sessions = EmulatedSessions(
            self.uid,
            settings.client.message_limit_bytes,
            engine_services.forwarding,
            receive=self.receive,
            handle_event=handle_event,
            limit_reached=self.limit_reached,
        )
        self.reading_turns: TurnQueue[Callable[[], None]] = TurnQueue(lambda read_on: read_on())
        self._backfill = Backfill(
            engine_services.broker,
            rules,
            self.state,
            self._tasks.spawn,
            self._on_backfilled,
            self._session_io.on_reset,
        )
        self.engine_callbacks = EngineCallbacks(
            self.uid,
            self.hub,
            self.fan_out,
            self._backfill,
            revoker=self._revoker,
            emulated_sessions=self.emulated_sessions,
            step=step,
            awaited_setups=self._session_io.awaited_setups,
            handle_event=handle_event,
            drain=self._on_drain_command,
            node_info=self.node_info,
        )
        self._started_at: float | None = None
        """The monotonic second at which the engine was started; None while it is stopped."""
        self.is_draining = False
        """Whether it sends its clients to other nodes, because it stops."""
        add_gauges(self.metrics, self.name, self.state, engine, lambda: self.is_draining)
        self.lifecycle = self._lifecycle_writer(rules)
        add_lifecycle_gauges(self.metrics, self.lifecycle)

    def _lifecycle_writer(self, rules: ChannelRules) -> LifecycleWriter | None:
        """Observe all sessions from now on, if lifecycle events are recorded."""
        options = self.settings.events
        if not options.types:
            return None
        event_log = self.engine.event_log
        writer = LifecycleWriter(self.name, self.uid, options, rules, event_log, self.now, self.metrics)
        self.state.observe = writer.observe
        self.services.add_warnings(writer.warnings)
        return writer

    @property
    def hub(self) -> Hub[Connection]:
        """The index of this node's connections and channels."""
        return self.state.hub

    def limit_reached(self, limit: str, **fields: object) -> None:
        """Count and log that a limit refused something. `limit` is its key in the configuration."""
        self._refusals.limit_reached(limit, **fields)

    def log_refusal(self, event: str, **fields: Any) -> None:
        """Write a line of the refusal log, with the client whose event is being handled, if there is one."""
        self._refusals.log_refusal(event, **fields)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what an operator should do now, apart from those about key sets."""
        return (*self.engine.health.warnings, *self.services.warnings)

    # ---------------------------------------------------------------------------------------------- lifecycle

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        """Serve inside the context.

        At its end every remaining client is told to reconnect, and the engine is stopped.
        """
        await self.prepare()
        try:
            async with self.services.running(), self._tasks.running(), self._session_io.authorizations:
                top_checks = self._tasks.start(self._check_tops())
                key_sets = self._tasks.start(self._key_sets.run())
                writing = None if self.lifecycle is None else self._tasks.start(self.lifecycle.run())
                for work in self.services:
                    self._tasks.spawn(work.run())
                try:
                    yield self
                finally:
                    top_checks.cancel()
                    key_sets.cancel()
                    self._begin_draining()
                    self.disconnect_all(errors.SHUTDOWN)
                    if self.lifecycle is not None and writing is not None:
                        self.lifecycle.stop()
                        writing.add_done_callback(lambda _task: self.services.stop())
                    else:
                        self.services.stop()
                    self._session_io.stop()
                    self._tasks.stop()
        finally:
            self._started_at = None
            await self.engine.stop()

    async def _check_tops(self) -> None:
        if self.engine.may_lose_messages:
            await self._backfill.check_tops()

    def _begin_draining(self) -> None:
        self.is_draining = True
        self.services.drain()

    async def prepare(self) -> None:
        """Start the engine; `running` does it if it was not done before.

        Raises EngineError with a sentence for the operator.
        """
        if self._started_at is not None:
            return
        self._started_at = time.monotonic()
        self.kept_headers = self._new_sessions.start()
        try:
            await self.engine.start(self.engine_callbacks)
        except BaseException:
            self._started_at = None
            raise

    def attach_server(self, on_drain_requested: Callable[[], None]) -> None:
        """Let a server stop the process when a control command drains this node.

        Without a server the node drains, and the application that it is mounted in goes on.
        """
        self._on_drain_requested = on_drain_requested

    def set_address(self, address: str) -> None:
        """Note the host and port where a server listens for this node."""
        self.address = address

    @property
    def unready_reason(self) -> str:
        """Why this node is not ready, as a sentence; empty if it can publish and receive."""
        if not self._tasks.are_running:
            return "The node is not running."
        if self.is_draining:
            return "The node is draining: its clients reconnect to other nodes, then it stops."
        return self.engine.unready_reason

    def now(self) -> Timestamp:
        """Return the current time."""
        return Timestamp(time.monotonic(), time.time())

    # -------------------------------------------------------------------------------------------- connections

    def new_session(
        self,
        *,
        sends_pings: bool = True,
        wants_pong: bool = True,
        announces_pings: bool = True,
        is_unidirectional: bool = False,
        is_executed: bool = True,
    ) -> Session:
        """Return a session for a new connection; what one that is not executed does counts for no limit."""
        return self._new_sessions.make(
            sends_pings=sends_pings,
            wants_pong=wants_pong,
            announces_pings=announces_pings,
            is_unidirectional=is_unidirectional,
            is_executed=is_executed,
        )

    def admit(self, key: str) -> NotAdmitted | None:
        """Count a connection of an address in, or return why it is refused."""
        refused = self.admission.admit(key, time.monotonic())
        if refused is not None:
            self.limit_reached(refused.limit, address=key)
        return refused

    def attach(self, connection: Connection) -> None:
        """Add a connection. Its transport then hands over events, the last of them `ConnectionLost`."""
        self._session_io.attach(connection)
        if self.is_draining or not self._tasks.are_running:
            self._shut_down(connection)

    def receive(self, connection: Connection, data: bytes) -> None:
        """Hand one incoming message to a connection's session. Never raises."""
        self.metrics.received_bytes.count += len(data)
        self._session_io.handle_event(connection, events.Received(connection.codec.decode_commands(data)))

    def handle_event(self, connection: Connection, event: Event) -> None:
        """Hand an event to a connection's session, and do what it asks for. Never raises."""
        self._session_io.handle_event(connection, event)

    def client_is_behind(self, connection: Connection) -> None:
        """Watch how fast a client takes what is queued for it."""
        self._session_io.client_is_behind(connection)

    def client_caught_up(self, connection: Connection) -> None:
        """Stop watching a client, and go on with what was kept for it."""
        self._session_io.client_caught_up(connection)

    async def wait_for_keys(self, tokens: Iterable[str]) -> None:
        """Wait while keys of these tokens are being fetched, for a few seconds at most."""
        if self._key_sets:
            await self._key_sets.wait_for(tokens)

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke tokens on every node. An `expire_at` or `issued_before` of 0 is replaced by its default.

        Raises Refused, or EngineError.
        """
        await self._revoker.revoke(revocation)

    def count_sent(self, size: int) -> None:
        """Count bytes that a transport sends to one client."""
        self.metrics.sent_bytes.count += size

    async def drain(self, seconds: float, is_hurried: Callable[[], bool]) -> int:
        """Stop being ready, and disconnect every client with a code that makes it reconnect (node/drain.py).

        Returns how many clients were connected.
        """
        self._begin_draining()
        return await drain(list(self.state.connections), self._shut_down, seconds, is_hurried)

    def hurry(self) -> None:
        """Cancel what calls of clients are doing as soon as the node stops, or now if it is stopping."""
        self._tasks.hurry()

    def _shut_down(self, connection: Connection) -> None:
        self.handle_event(connection, events.ServerDisconnect(errors.SHUTDOWN))

    def _on_drain_command(self) -> None:
        self._begin_draining()  # at once, even if the server that runs the node is busy
        self._on_drain_requested()

    def _drain_mounted(self) -> None:
        """Send the clients of a mounted node elsewhere; the application around it goes on."""

        async def drain_slowly() -> None:
            await self.drain(self.settings.server.drain_seconds, lambda: False)

        self._tasks.spawn(drain_slowly())

    def disconnect_all(self, why: Disconnect) -> None:
        """Close every connection of this node."""
        for connection in list(self.state.connections):
            self.handle_event(connection, events.ServerDisconnect(why))

    async def node_info(self, request: SurveyRequest) -> NodeInfo:
        """Return this node's own figures. Other code runs between slices of the channels."""
        glob = Glob(request.pattern) if request.pattern else None
        channels: dict[str, int] = {}
        count = subscriptions = 0
        async for name, channel in in_slices(list(self.hub.channels.items())):
            count += len(channel) > 0
            subscriptions += len(channel)
            if len(channel) and request.wants_channels and (glob is None or glob.matches(name)):
                channels[name] = len(channel)
        return NodeInfo(
            uid=self.uid,
            name=self.name,
            version=__version__,
            num_clients=len(self.hub),
            num_users=len(list(self.hub.users)),
            num_channels=count,
            num_subs=subscriptions,
            uptime=0 if self._started_at is None else int(time.monotonic() - self._started_at),
            channels=channels,
            address=self.address,
            state="draining" if self.is_draining else "deaf" if self.engine.unready_reason else "ready",
            memory_bytes=_resident_bytes(),
            lag_seconds=self.engine.lag_seconds,
            warnings=(*self.warnings, *self._key_sets.warnings),
        )

    def _on_backfilled(self, channel: Channel[Connection], publications: int) -> None:
        self.metrics.backfilled_publications.count += publications
        self.fan_out.wake(channel)

    def _room_in(self, channel: str) -> Awaitable[None] | None:
        """Return what a publisher must await, so that it does not outrun a channel's delivery here."""
        found = self.state.hub.channels.get(channel)
        if found is None or found.queued_bytes <= QUEUED_BYTES:
            return None
        return self.fan_out.wait_for_room(found)


def _resident_bytes() -> int:
    """Return the memory that this process holds; 0 on systems without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
