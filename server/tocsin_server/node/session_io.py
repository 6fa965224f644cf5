"""Hands events to the sessions of a node, and performs the I/O that they ask for.

    event --> NodeState.apply --requests--> transport, engine, tasks --later--> event …

Where I/O must wait for the engine it becomes a task, and its result comes back as an event. The module has no
state of its own: `NodeState` and the parts that `SessionIo` makes have it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from operator import attrgetter
from typing import assert_never

from tocsin_server import errors
from tocsin_server.config.loading import Settings
from tocsin_server.core import events, node_state
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.events import Event, Timestamp
from tocsin_server.core.node_state import IoRequest, NodeState, Write
from tocsin_server.core.phases import CLOSED
from tocsin_server.engine.engine import EngineServices
from tocsin_server.errors import EngineError, EngineLimit
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.authorizations import Authorizations
from tocsin_server.node.awaited_setups import AwaitedSetups
from tocsin_server.node.catching_up import CatchUps
from tocsin_server.node.client_writes import ClientWrites
from tocsin_server.node.closed_connections import ClosedConnections
from tocsin_server.node.connection import Connection
from tocsin_server.node.current_step import CurrentStep
from tocsin_server.node.deadlines import DeadlineQueue
from tocsin_server.node.metrics import count_recoveries
from tocsin_server.node.node_tasks import NodeTasks
from tocsin_server.node.operations import Operations
from tocsin_server.node.refusal_log import RefusalLog, client_fields
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.node.session_tasks import READS_WAIT, SessionTasks
from tocsin_server.node.slots import Slots
from tocsin_server.node.slow_clients import SlowClients
from tocsin_server.node.subscribing import SubscriptionSetup
from tocsin_server.node.turns import TurnQueue
from tocsin_server.protocol.messages import RpcRequest


class SessionIo:
    """Performs the I/O of a node's sessions. `tasks` runs what takes time."""

    def __init__(  # noqa: PLR0913 - each collaborator is an argument
        self,
        settings: Settings,
        engine: EngineServices,
        state: NodeState[Connection],
        rules: ChannelRules,
        *,
        operations: Operations,
        tasks: NodeTasks,
        metrics: Metrics,
        sampled_log: SampledLog,
        refusals: RefusalLog,
        step: CurrentStep,
    ) -> None:
        self._client_options = settings.client
        self._engine = engine
        self._state = state
        self._spawn = tasks.spawn
        self._metrics = metrics
        self._sampled_log = sampled_log
        self._limit_reached = refusals.limit_reached
        self._step = step
        # A page of history may have `history_limit_bytes`, or one publication
        page_bytes = max(settings.client.history_limit_bytes, settings.api.body_limit_bytes)
        self.writes = ClientWrites(
            state,
            metrics,
            sampled_log,
            handle_event=self.handle_event,
            on_reset=self.on_reset,
        )
        self._closed = ClosedConnections()
        self._deadlines: DeadlineQueue[Connection] = DeadlineQueue(
            self._on_deadline, attrgetter("session.deadline"), time.monotonic
        )
        self._turns: TurnQueue[Connection] = TurnQueue(self._on_turn)
        self._slow_clients: SlowClients[Connection] = SlowClients(
            send_timeout=settings.client.send_timeout,
            limit_bytes=settings.limits.queued_bytes,
            clock=time.monotonic,
            on_slow=self._on_slow,
            on_excess=self._on_excess,
        )
        self._read_slots: Slots[Connection] = Slots(settings.limits.recovery_bytes)
        self._catch_ups = CatchUps(
            engine.broker,
            rules,
            state,
            self._read_slots,
            settings.client,
            page_bytes,
            spawn=tasks.spawn,
            room_for=self._room_for,
            deliver=self.writes.deliver_page,
            on_reset=self.on_reset,
        )
        self._subscription_setup = SubscriptionSetup(
            engine,
            state,
            self._read_slots,
            settings.client.recovery_page_bytes,
            page_bytes,
            settings.limits.presence_entries,
            spawn=tasks.spawn,
            on_opened=self.handle_event,
            on_failed=self._on_setup_failed,
            on_reset=self.on_reset,
        )
        self._session_tasks = SessionTasks(
            settings,
            engine,
            operations,
            self._read_slots,
            page_bytes,
            sampled_log,
            handle_event=self.handle_event,
            limit_reached=refusals.limit_reached,
            room_for=self._room_for,
        )
        self.authorizations = Authorizations(self.handle_event, sampled_log, step)

    @property
    def awaited_setups(self) -> AwaitedSetups[Connection]:
        """Says when subscriptions that were begun are live."""
        return self._subscription_setup.awaited

    def attach(self, connection: Connection) -> None:
        """Add a connection. Events follow, the last of them `ConnectionLost`."""
        self._state.attach(connection)
        self._metrics.connections.counts[connection.transport_name] += 1
        self._deadlines.update(connection)

    def handle_event(self, connection: Connection, event: Event) -> None:
        """Hand an event to a connection's session, and do what it asks for. Never raises."""
        if connection is self._step.deciding:
            asyncio.get_running_loop().call_soon(self.handle_event, connection, event)
            return
        session, setup = connection.session, self._subscription_setup
        was_attached = connection in self._state.connections
        now = Timestamp(time.monotonic(), time.time())
        following: Event | None = event
        while following is not None:
            for request in self._apply(connection, following, now):
                if type(request) is Write:  # what most events ask for
                    self.writes.send(connection, request.messages)
                else:
                    self._perform(connection, request)
            following = setup.take_opened(connection)
        if connection in setup.awaited.by_connection:
            setup.awaited.settle(connection)
        if session.phase is CLOSED:
            self._slow_clients.wake(connection)
            if was_attached:
                self._metrics.connections.counts[connection.transport_name] -= 1
                self._deadlines.remove(connection)
                if session.user and self._client_options.user_connection_limit:
                    self._spawn(self._engine.users.remove(session.user, session.client))
        else:
            self._deadlines.update(connection)
            connection.pause_reading(session.has_waiting_commands)
            if session.needs_turn:
                self._turns.add(connection)

    def on_reset(self, connection: Connection, channel: str) -> None:
        """Tell a session that its client misses publications of a channel."""
        self._metrics.gaps.count += connection.session.has_position_in(channel)
        self.handle_event(connection, events.ChannelReset(channel))

    def client_is_behind(self, connection: Connection) -> None:
        """Watch how fast a client takes what is queued for it."""
        self._slow_clients.add(connection)
        self._state.change_write(connection, is_behind=True)

    def client_caught_up(self, connection: Connection) -> None:
        """Stop watching a client, and go on with what waited for it."""
        self._slow_clients.remove(connection)
        if connection in self._state.connections:  # a HEAD request only seems to open a stream
            self._state.change_write(connection, is_behind=False)
            # Later, because the transport may call this in the middle of a write
            asyncio.get_running_loop().call_soon(self.writes.write_kept, connection)

    def stop(self) -> None:
        """Cancel the timers, once all connections are closed."""
        self._deadlines.stop()
        self._slow_clients.stop()
        self._closed.write()

    def _apply(self, connection: Connection, event: Event, now: Timestamp) -> list[IoRequest]:
        """Hand an event to a connection's session, and return the I/O that it asks for."""
        step = self._step
        step.connection, step.event = connection, event
        try:
            requests = self._state.apply(connection, event, now)
        except Exception:  # noqa: BLE001 - logged as an error
            self._sampled_log.fault("session_failed", client=connection.session.client)
            requests = self._state.apply(connection, events.ServerDisconnect(errors.SERVER_ERROR), now)
            requests += self._state.apply(connection, event, now)  # closed now: undoes what it set up
        finally:
            step.connection = None
        if isinstance(event, events.SubscriptionsOpened):
            if connection.is_behind:
                self._state.change_write(connection, is_behind=True)
            count_recoveries(self._metrics, connection.transport_name, requests)
        return requests

    def _perform(self, connection: Connection, request: IoRequest) -> None:  # noqa: C901, PLR0912 - a case per request
        engine = self._engine
        match request:
            case Write():
                self.writes.send(connection, request.messages)
            case events.OpenSubscriptions():
                self._subscription_setup.begin(connection, request.plans)
            case events.Identify():
                if request.user and self._is_single_connection:
                    self._spawn(self._session_tasks.disconnect_others(connection))
            case node_state.UnsubscribeChannel():
                self._unsubscribe(request.channel)
            case events.Close(why):
                self._metrics.count_disconnect(why.code)
                self._closed.add(why, partial(client_fields, connection))
                connection.close(why)
            case events.Execute(_, RpcRequest(method)):
                self._spawn(self._session_tasks.execute(connection, request), method)
            case events.Execute():
                self._spawn(self._session_tasks.execute(connection, request))
            case events.Authorize():
                self.authorizations.add(connection, request)
            case events.ReserveConnection(user):
                self._spawn(self._session_tasks.reserve_connection(connection, user))
            case node_state.CatchUp(channel):
                self._catch_ups.begin(connection, channel)
            case node_state.RemovePresence(channel, client):
                self._spawn(engine.presence.remove(channel, client))
            case node_state.PublishJoinLeave(channel, push):
                self._spawn(engine.broker.publish_join_leave(channel, push))
            case _:
                assert_never(request)

    @property
    def _is_single_connection(self) -> bool:
        options = self._client_options
        return options.personal_channel and options.personal_channel_single_connection

    def _unsubscribe(self, name: str) -> None:
        """Unsubscribe from a channel that has no new subscriber. The broker keeps the order of calls."""
        if name not in self._state.hub.channels and not self._engine.broker.unsubscribe_now(name):
            self._spawn(self._unsubscribe_later(name))

    async def _unsubscribe_later(self, name: str) -> None:
        if name not in self._state.hub.channels:
            await self._engine.broker.unsubscribe(name)

    # ------------------------------------------------------------------------------ called by the parts

    def _on_deadline(self, connection: Connection) -> None:
        self.handle_event(connection, events.DeadlineReached())

    def _on_slow(self, connection: Connection) -> None:
        self._limit_reached("client.send_timeout", client=connection.session.client)
        self.handle_event(connection, events.ServerDisconnect(errors.SLOW))

    def _on_excess(self, connection: Connection) -> None:
        self._limit_reached("limits.queued_bytes", client=connection.session.client)
        self.handle_event(connection, events.ServerDisconnect(errors.SLOW))
        connection.drop()

    def _room_for(self, connection: Connection) -> Awaitable[None]:
        """Wait until a client is no longer behind, or its session is over."""
        return self._slow_clients.wait_for_room(connection, lambda: connection.session.is_closed)

    def _on_turn(self, connection: Connection) -> None:
        self.handle_event(connection, events.Turn())

    def _on_setup_failed(self, connection: Connection, channels: Sequence[str], error: Exception) -> None:
        """Tell a session why subscriptions could not be set up."""
        client, why = connection.session.client, errors.INTERNAL_ERROR
        match error:
            case TimeoutError():  # no slot to read history was free
                self._limit_reached("limits.recovery_bytes", client=client)
                why = READS_WAIT
            case EngineLimit():
                self._limit_reached(error.limit, client=client, channels=channels[:1])
                why = error.refusal
            case EngineError():
                self._sampled_log.write(
                    "subscribe_failed",
                    level="warning",
                    client=client,
                    channels=channels[:10],
                    error=str(error),
                )
            case _:
                self._sampled_log.fault("subscribe_raised", client=client)
        self.handle_event(connection, events.SubscriptionsFailed(channels, why))
