"""Setting up subscriptions without losing a publication between history and what is received live.

hold what is received -> subscribe in the broker -> add presence -> read history -> merge both
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from tocsin_server.core.events import HistoryRead, SubscriptionPlan, SubscriptionsOpened
from tocsin_server.core.node_state import C, NodeState
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.engine import EngineServices
from tocsin_server.errors import EngineError

READ_ATTEMPTS = 5
"""How often history is read until it reaches what was received. A second read follows a loss."""

Result = TypeVar("Result")


class SubscriptionSetup(Generic[C]):
    """Sets up subscriptions. Their channels already hold what is received.

    `on_reset(connection, channel)` is called for each connection that misses publications, because the
    history that was read is another one than the channel followed.
    """

    def __init__(
        self,
        engine: EngineServices,
        state: NodeState[C],
        on_reset: Callable[[C, str], None],
        presence_limit: int = 0,
    ) -> None:
        self._engine = engine
        self._presence_limit = presence_limit
        self._state = state
        self._on_reset = on_reset

    async def open(self, plans: Sequence[SubscriptionPlan]) -> SubscriptionsOpened:
        """Set up subscriptions. Raises EngineError.

        The caller must hand the result to the session in the same step, without an await in between.
        """
        engine = self._engine
        await gather_calls(engine.broker.subscribe(plan.channel) for plan in plans)
        await gather_calls(
            engine.presence.add(plan.channel, plan.info, plan.options.join_leave, self._presence_limit)
            for plan in plans
            if plan.options.presence
        )
        with_history = [(plan, plan.read) for plan in plans if plan.read is not None]
        for _ in range(READ_ATTEMPTS):
            histories = await gather_calls(
                engine.broker.read_history(plan.channel, _query(read), plan.options)
                for plan, read in with_history
            )
            read = {plan.channel: history for (plan, _), history in zip(with_history, histories, strict=True)}
            merged = self._state.merge(plans, read)
            for connection, channel in merged.resets:
                self._on_reset(connection, channel)
            if merged.histories is not None:
                return SubscriptionsOpened(merged.histories)
        raise EngineError("the history does not reach what was received")


async def gather_calls(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """Await calls that may leave together; a single one without the cost of a task."""
    awaitables = list(calls)
    if len(awaitables) == 1:
        return [await awaitables[0]]
    return await asyncio.gather(*awaitables)


def _query(read: HistoryRead) -> HistoryQuery:
    if read.is_latest:
        return HistoryQuery(limit=1, is_reverse=True)
    return TOP_ONLY if read.since is None else HistoryQuery(read.since, read.limit)
