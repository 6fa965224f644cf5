"""What sessions ask for and what takes time: commands, and reservations of connections.

Each coroutine does one thing for one connection, and its result comes back to the session as an event. The
node runs them as tasks of its own group. The module has no state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog
from msgspec import Struct

from tocsin_server import errors
from tocsin_server.cancellation import is_cancelled
from tocsin_server.config.loading import Settings
from tocsin_server.core import events
from tocsin_server.core.events import Event
from tocsin_server.engine.engine import EngineServices
from tocsin_server.engine.nodes import ControlCommand
from tocsin_server.errors import EngineError, EngineLimit, Refusal, Refused
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.node.connection import Connection
from tocsin_server.node.operations import Operations
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.node.slots import WAIT_SECONDS, Slots
from tocsin_server.protocol.messages import (
    ClientInfo,
    HistoryRequest,
    HistoryResult,
    PresenceRequest,
    PresenceResult,
    Publication,
)

READS_WAIT = errors.because(errors.TOO_MANY_REQUESTS, "too many histories and presences are read at once")
"""The refusal of a command that got no slot to read history within WAIT_SECONDS."""

SLOT_BYTES_PER_SECOND = 4_194_304
"""How fast histories and presences are read in one slot. A connection has OWNER_SLOTS of them."""

log = structlog.get_logger()


class SessionTasks:
    """Does for the sessions of a node what takes time. `page_bytes` is the most that a result may have."""

    def __init__(  # noqa: PLR0913 - each collaborator is an argument
        self,
        settings: Settings,
        engine: EngineServices,
        operations: Operations,
        slots: Slots[Connection],
        page_bytes: int,
        sampled_log: SampledLog,
        *,
        handle_event: Callable[[Connection, Event], None],
        limit_reached: Callable[..., None],
        room_for: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._operations = operations
        self._slots = slots
        self._page_bytes = page_bytes
        self._page_turns = LoopTurns()
        self._sampled_log = sampled_log
        self._handle_event = handle_event
        self._limit_reached = limit_reached
        self._room_for = room_for

    async def disconnect_others(self, connection: Connection) -> None:
        """Close the user's connections on all nodes that were identified before this one.

        The order is the same on all nodes, so of connections made at the same time exactly one stays.
        """
        session = connection.session
        if not session.is_closed:
            close = events.ServerDisconnect(errors.CONNECTION_LIMIT)
            order = (session.identified_at, session.client)
            await self._operations.control(ControlCommand(session.user, close, identified_before=order))

    async def reserve_connection(self, connection: Connection, user: str) -> None:
        """Count a connection of a user, if the user may have one more."""
        limit, client = self._settings.client.user_connection_limit, connection.session.client
        outcome: Event = events.ConnectionRefused(errors.SERVER_ERROR)
        try:
            await self._engine.users.add(user, client, limit)
            outcome = events.ConnectionReserved()
        except EngineLimit as error:
            self._limit_reached(error.limit, client=client, user=user)
            outcome = events.ConnectionRefused(error.refusal)
        except EngineError as error:
            self._sampled_log.write(
                "connection_not_reserved", level="warning", client=client, error=str(error)
            )
        except Exception:  # noqa: BLE001 - logged as an error
            self._sampled_log.fault("reservation_raised", client=client)
        if connection.session.is_closed:
            await self._engine.users.remove(user, client)
        self._handle_event(connection, outcome)

    async def execute(self, connection: Connection, execute: events.Execute) -> None:
        """Execute a command. Results that may be large wait until the client has taken what is queued."""
        if not isinstance(execute.request, HistoryRequest | PresenceRequest):
            outcome = await self._run_operation(connection, execute)
            self._handle_event(connection, events.Executed(execute.id, outcome))
            return
        await self._room_for(connection)
        try:
            async with self._slots.slot(connection, WAIT_SECONDS, self._page_bytes):
                outcome = await self._run_operation(connection, execute)
                await self._page_turns.wait()  # encoding a page takes about as long as decoding it
                self._handle_event(connection, events.Executed(execute.id, outcome))
                await asyncio.sleep(_seconds_of_page(outcome))
        except TimeoutError:
            self._limit_reached("limits.recovery_bytes", client=connection.session.client)
            self._handle_event(connection, events.Executed(execute.id, READS_WAIT))

    async def _run_operation(self, connection: Connection, execute: events.Execute) -> Struct | Refusal:
        try:
            return await self._operations.execute(execute, self._settings.client)
        except Refused as error:
            return error.refusal
        except EngineError as error:
            client = connection.session.client
            self._sampled_log.write("command_failed", level="warning", client=client, error=str(error))
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            self._sampled_log.fault("command_raised", client=connection.session.client)
        return errors.INTERNAL_ERROR


def _seconds_of_page(outcome: Struct | Refusal) -> float:
    """How long a slot is kept for a large result, so that a client that reads without end leaves time."""
    items: Collection[Publication | ClientInfo] = ()
    if isinstance(outcome, HistoryResult):
        items = outcome.publications
    elif isinstance(outcome, PresenceResult):
        items = outcome.presence.values()
    return sum(item.size for item in items) / SLOT_BYTES_PER_SECOND


def log_left_method(task: asyncio.Task[Any]) -> None:
    """Log that an RPC method, after which a task is named, goes on although it was cancelled."""
    log.warning("rpc_method_ignores_cancellation", method=task.get_name())
