"""Setting up subscriptions without losing a publication between history and what is received live.

hold what is received -> subscribe in the broker -> add presence -> read history -> merge both
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from tocsin_server.core.events import HistoryRead, SubscriptionPlan, SubscriptionsOpened
from tocsin_server.core.node_state import NodeState, StateConnection
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.engine import EngineServices
from tocsin_server.errors import EngineError
from tocsin_server.node.slots import WAIT_SECONDS, Slots

READ_ATTEMPTS = 5
"""How often history is read until it reaches what was received. A second read follows a loss."""

Result = TypeVar("Result")


class SetupConnection(StateConnection, Protocol):
    """What a set-up needs of a connection."""

    @property
    def queued_bytes(self) -> int:
        """How many bytes are queued for the client."""


C = TypeVar("C", bound=SetupConnection)


class SubscriptionSetup(Generic[C]):
    """Sets up subscriptions. Their channels already hold what is received.

    A recovery has a slot to read its first page, of at most `page_bytes`, and only as much of it as the
    client has room for. `on_reset(connection, channel)` is called for each connection that misses
    publications, because the history that was read is another one than the channel followed.
    """

    def __init__(
        self,
        engine: EngineServices,
        state: NodeState[C],
        slots: Slots[C],
        page_bytes: int,
        on_reset: Callable[[C, str], None],
        presence_limit: int = 0,
    ) -> None:
        self._engine = engine
        self._presence_limit = presence_limit
        self._state = state
        self._slots = slots
        self._page_bytes = page_bytes
        self._on_reset = on_reset

    async def open(
        self,
        connection: C,
        plans: Sequence[SubscriptionPlan],
        on_opened: Callable[[C, SubscriptionsOpened], None],
    ) -> None:
        """Set up subscriptions. Raises EngineError, and TimeoutError if no slot is free in time.

        `on_opened` hands the result to the session before the slot is given back.
        """
        if any(plan.read is not None and plan.read.since is not None for plan in plans):
            async with self._slots.slot(connection, WAIT_SECONDS):
                on_opened(connection, await self._open(connection, plans))
        else:
            on_opened(connection, await self._open(connection, plans))

    async def _open(self, connection: C, plans: Sequence[SubscriptionPlan]) -> SubscriptionsOpened:
        engine = self._engine
        await gather_calls(engine.broker.subscribe(plan.channel) for plan in plans)
        await gather_calls(
            engine.presence.add(plan.channel, plan.info, plan.options.join_leave, self._presence_limit)
            for plan in plans
            if plan.options.presence
        )
        with_history = [(plan, plan.read) for plan in plans if plan.read is not None]
        for _ in range(READ_ATTEMPTS):
            page_bytes = max(1, self._room_in(connection) // max(1, len(with_history)))
            histories = await gather_calls(
                engine.broker.read_history(plan.channel, _query(read, page_bytes), plan.options)
                for plan, read in with_history
            )
            read = {plan.channel: history for (plan, _), history in zip(with_history, histories, strict=True)}
            merged = self._state.merge(plans, read, self._room_in(connection))
            for other, channel in merged.resets:
                self._on_reset(other, channel)
            if merged.opened is not None:
                return merged.opened
        raise EngineError("the history does not reach what was received")

    def _room_in(self, connection: C) -> int:
        """How many bytes of a page a client has room for."""
        return self._page_bytes - connection.queued_bytes


async def gather_calls(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """Await calls that may leave together; a single one without the cost of a task."""
    awaitables = list(calls)
    if len(awaitables) == 1:
        return [await awaitables[0]]
    return await asyncio.gather(*awaitables)


def _query(read: HistoryRead, page_bytes: int) -> HistoryQuery:
    if read.is_latest:
        return HistoryQuery(limit=1, is_reverse=True)
    if read.since is None:
        return TOP_ONLY
    return HistoryQuery(read.since, read.limit, limit_bytes=page_bytes)
