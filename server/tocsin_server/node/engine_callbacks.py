"""What an engine calls: publications, joins and leaves, control commands, surveys, and revocations.

The module has no state of its own. It changes that of the node's channels and connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from tocsin_server.core import events
from tocsin_server.core.events import Event
from tocsin_server.core.hub import Hub
from tocsin_server.core.positions import NEXT
from tocsin_server.core.revocations import Revocation
from tocsin_server.core.session import Session
from tocsin_server.engine.nodes import ControlCommand, Drain, NodeInfo, SurveyRequest
from tocsin_server.node.awaited_setups import AwaitedSetups
from tocsin_server.node.backfill import Backfill
from tocsin_server.node.connection import Connection
from tocsin_server.node.current_step import CurrentStep
from tocsin_server.node.emulated_sessions import EmulatedSessions
from tocsin_server.node.fanout import FanOut
from tocsin_server.node.revoking import TokenRevoker
from tocsin_server.protocol.messages import Publication, Push


class EngineCallbacks:
    """The handler that the node `uid` gives its engine (`EngineHandler` in engine/engine.py).

    `handle_event` hands an event to a connection. `drain` begins to drain the node. `node_info` answers a
    survey for it.
    """

    def __init__(  # noqa: PLR0913 - each collaborator is an argument
        self,
        uid: str,
        hub: Hub[Connection],
        fan_out: FanOut[Connection],
        backfill: Backfill[Connection],
        *,
        revoker: TokenRevoker,
        emulated_sessions: EmulatedSessions,
        step: CurrentStep,
        awaited_setups: AwaitedSetups[Connection],
        handle_event: Callable[[Connection, Event], None],
        drain: Callable[[], None],
        node_info: Callable[[SurveyRequest], Awaitable[NodeInfo]],
    ) -> None:
        self.uid = uid
        """The node's unique id."""
        self._hub = hub
        self._fan_out = fan_out
        self._backfill = backfill
        self._revoker = revoker
        self._emulated_sessions = emulated_sessions
        self._step = step
        self._awaited_setups = awaited_setups
        self._handle_event = handle_event
        self._drain = drain
        self._node_info = node_info

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        published_at: float,
        *,
        may_be_delta: bool,
    ) -> None:
        """Queue a publication for the channel's subscribers here; read what is missing before it."""
        found = self._hub.channels.get(channel)
        if found is None:
            return
        received = found.receive(publication, epoch, published_at, may_be_delta=may_be_delta)
        if received is not NEXT and received.needs_backfill:
            self._backfill.request(found)
        self._fan_out.wake(found)

    def on_join_leave(self, channel: str, push: Push) -> None:
        """Queue a join or leave for the subscribers that receive them."""
        found = self._hub.channels.get(channel)
        if found is not None:
            found.receive_join_leave(push)
            self._fan_out.wake(found)

    def on_resubscribed(self, channels: Collection[str]) -> None:
        """Read what these channels missed while their pub/sub connection was interrupted."""
        self._backfill.request_all(channels)

    def on_control(self, command: ControlCommand) -> Collection[asyncio.Future[None]]:
        """Execute a control command on this node's connections of a user, or on the node.

        A command that subscribes counts as applied once the subscriptions are live.
        """
        if isinstance(command.event, Drain):
            if command.event.node == self.uid:
                self._drain()
            return ()
        ends = [
            self._control(connection, command.event)
            for connection in self._hub.connections_of(command.user)
            if _concerns(command, connection.session)
        ]
        return [end for end in ends if end is not None]

    def _control(self, connection: Connection, event: events.ServerEvent) -> asyncio.Future[None] | None:
        """Apply an event of the API. Returns what must be done before it counts as applied."""
        if connection is self._step.deciding:
            return self._control_later(connection, event)
        self._handle_event(connection, event)
        if isinstance(event, events.ServerSubscribe):
            return self._awaited_setups.end_of(connection, event.channel)
        return None

    def _control_later(self, connection: Connection, event: events.ServerEvent) -> asyncio.Future[None]:
        """Apply an event that an authorizer causes while it decides, after the step of the session."""
        loop = asyncio.get_running_loop()
        applied: asyncio.Future[None] = loop.create_future()

        def apply() -> None:
            end = self._control(connection, event)
            if end is None:
                applied.set_result(None)
            else:
                end.add_done_callback(lambda _: applied.set_result(None))

        loop.call_soon(apply)
        return applied

    @property
    def known_revocations(self) -> Sequence[Revocation]:
        """All revocations that this node knows, for an engine whose store has lost some."""
        return self._revoker.revocations.all()

    def on_revocations(self, revocations: Sequence[Revocation]) -> None:
        """Add revocations, and end the connections and subscriptions of the revoked tokens."""
        self._revoker.apply(revocations, time.time())

    def on_commands(self, session: bytes, data: bytes) -> bool:
        """Hand commands that another node received to the emulated connection that they are for."""
        return self._emulated_sessions.receive(session, data)

    async def node_info(self, request: SurveyRequest) -> NodeInfo:
        """Return the node's own figures. Other code runs between slices of the channels."""
        return await self._node_info(request)


def _concerns(command: ControlCommand, session: Session) -> bool:
    """Whether a control command for a user concerns this connection of the user."""
    if session.client in command.exclude_clients or command.client not in ("", session.client):
        return False
    limit = command.identified_before
    return limit is None or (session.identified_at, session.client) < tuple(limit)
