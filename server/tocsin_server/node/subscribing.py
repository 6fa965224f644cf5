"""Setting up subscriptions without losing a publication between history and what is received live.

hold what is received -> subscribe in the broker -> add presence and read history -> merge both

The subscriptions of one connection that are read in the same turn of the loop are confirmed together, with
one write. Those that need no wait are confirmed in the step that began them. The mutable state is the
subscriptions that have been read and are not confirmed yet; only `SubscriptionSetup` changes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from tocsin_server.core.events import HistoryRead, SubscriptionPlan, SubscriptionsOpened
from tocsin_server.core.node_state import NodeState, StateConnection
from tocsin_server.core.positions import History, is_behind
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.engine import EngineServices
from tocsin_server.errors import EngineError
from tocsin_server.node.awaited_setups import AwaitedSetups
from tocsin_server.node.history_reads import HistoryReads
from tocsin_server.node.slots import WAIT_SECONDS, Slots

READ_ATTEMPTS = 5
"""How often history is read until it reaches what was received. A second read follows a loss."""

ROOM_STEPS = 8
"""The room of clients is rounded down to so many parts of a page, so that they share reads."""

NOT_REACHED = "the history does not reach what was received"
"""Why a set-up failed after so many reads, in a log line."""


class SetupConnection(StateConnection, Protocol):
    """What a set-up needs of a connection."""

    @property
    def queued_bytes(self) -> int:
        """How many bytes are queued for the client."""


C = TypeVar("C", bound=SetupConnection)

OnFailed = Callable[[C, Sequence[str], Exception], None]
"""Told why subscriptions to channels failed. Called where the exception is being handled."""


class _Read(Struct, frozen=True):
    """A subscription whose history has been read, and what was read."""

    plan: SubscriptionPlan
    history: History | None
    slot_bytes: int
    """The size of its slot. 0: it has none."""
    attempt: int


class SubscriptionSetup(Generic[C]):
    """Sets up subscriptions. Their channels already hold what is received.

    A recovery has a slot to read its first page, of at most `page_bytes`, and only as much of it as the
    client has room for. If its first publication is larger than that, it is read once more, in a slot of
    `largest_bytes`. A slot is given back once `on_opened` has handed the result to the session.
    `on_reset(connection, channel)` is called for each connection that misses publications, because the
    history that was read is another one than the channel followed. `spawn` runs a coroutine as a task of the
    node.
    """

    def __init__(  # noqa: PLR0913 - each collaborator is an argument
        self,
        engine: EngineServices,
        state: NodeState[C],
        slots: Slots[C],
        page_bytes: int,
        largest_bytes: int,
        presence_limit: int = 0,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_opened: Callable[[C, SubscriptionsOpened], None],
        on_failed: OnFailed[C],
        on_reset: Callable[[C, str], None],
    ) -> None:
        self._engine = engine
        self._presence_limit = presence_limit
        self._state = state
        self._slots = slots
        self._reads: HistoryReads[C] = HistoryReads(engine.broker, slots)
        self._page_bytes = page_bytes
        self._largest_bytes = largest_bytes
        self._spawn = spawn
        self._on_opened = on_opened
        self._on_failed = on_failed
        self._on_reset = on_reset
        self._read: dict[C, list[_Read]] = {}
        self.awaited: AwaitedSetups[C] = AwaitedSetups()
        self._opened: dict[C, list[_Read]] = {}  # without a wait, in the present step

    def begin(self, connection: C, plans: Sequence[SubscriptionPlan]) -> None:
        """Set up subscriptions: several together, which are opened or fail together.

        No result comes before this has returned. `take_opened` must follow.
        """
        if len(plans) > 1 or not self._open_now(connection, plans[0]):
            self._spawn(self._open(connection, plans))

    def take_opened(self, connection: C) -> SubscriptionsOpened | None:
        """Return the subscriptions of a connection that were set up without a wait since the last call."""
        if connection not in self._opened:
            return None
        return self._confirmed(connection, self._opened.pop(connection))

    async def _open(self, connection: C, plans: Sequence[SubscriptionPlan]) -> None:
        try:
            if len(plans) == 1:
                await self._open_one(connection, plans[0])
            else:
                await self._open_together(connection, plans)
        except Exception as error:  # noqa: BLE001 - its receiver logs what is a defect
            self._on_failed(connection, [plan.channel for plan in plans], error)

    # ----------------------------------------------------------------------------------------- one at a time

    def _open_now(self, connection: C, plan: SubscriptionPlan) -> bool:
        """Set up one without a task, if it needs no presence and no slot, and the engine answers at once."""
        read, broker = plan.read, self._engine.broker
        if plan.options.presence or (read is not None and read.since is not None):
            return False
        if not broker.subscribe_now(plan.channel):
            return False
        history = None
        if read is not None:
            history = broker.read_history_now(plan.channel, _query(read), plan.options)
            if history is None:
                return False
        self._opened.setdefault(connection, []).append(_Read(plan, history, 0, 0))
        return True

    async def _open_one(self, connection: C, plan: SubscriptionPlan) -> None:
        await self._engine.broker.subscribe(plan.channel)
        if not plan.options.presence:
            await self._read_one(connection, plan)
        elif plan.read is None:
            await self._add_presence(plan)
            self._confirm_soon(connection, _Read(plan, None, 0, 0))
        else:
            added, read = await asyncio.gather(
                self._add_presence(plan), self._history(connection, plan, plan.read), return_exceptions=True
            )
            if isinstance(read, BaseException):
                raise added if isinstance(added, BaseException) else read
            if isinstance(added, BaseException):
                self._end_read(connection, read[1])
                raise added
            self._confirm_soon(connection, _Read(plan, *read, 0))

    async def _read_one(self, connection: C, plan: SubscriptionPlan, attempt: int = 0) -> None:
        if attempt == READ_ATTEMPTS:
            raise EngineError(NOT_REACHED)
        history, slot_bytes = None, 0
        if plan.read is not None:
            history, slot_bytes = await self._history(connection, plan, plan.read)
        self._confirm_soon(connection, _Read(plan, history, slot_bytes, attempt))

    async def _read_again(self, connection: C, plan: SubscriptionPlan, attempt: int) -> None:
        try:
            await self._read_one(connection, plan, attempt)
        except Exception as error:  # noqa: BLE001 - as in `open`
            self._on_failed(connection, [plan.channel], error)

    async def _history(self, connection: C, plan: SubscriptionPlan, read: HistoryRead) -> tuple[History, int]:
        """Return a history, and the size of the slot that was taken for it."""
        channel, options, largest = self._state.hub.channels[plan.channel], plan.options, self._largest_bytes
        if read.since is None or read.is_latest:
            slot_bytes = 0 if read.since is None else largest
            return await self._reads.read(connection, channel, lambda: _query(read), options, slot_bytes)

        def query(*, may_be_empty: bool = True) -> HistoryQuery:
            return _query(read, self._shared_room_in(connection), may_be_empty=may_be_empty)

        history, slot_bytes = await self._reads.read(connection, channel, query, options, self._page_bytes)
        if history.publications or not is_behind(read.since, history.top):
            return history, slot_bytes
        self._end_read(connection, slot_bytes)
        whole = partial(query, may_be_empty=False)
        return await self._reads.read(connection, channel, whole, options, largest)

    def _add_presence(self, plan: SubscriptionPlan) -> Awaitable[None]:
        return self._engine.presence.add(
            plan.channel, plan.info, plan.options.join_leave, self._presence_limit
        )

    def _confirm_soon(self, connection: C, read: _Read) -> None:
        """Confirm a subscription in the next turn of the loop, with the others of the connection."""
        if connection in self._read:
            self._read[connection].append(read)
        else:
            self._read[connection] = [read]
            asyncio.get_running_loop().call_soon(self._confirm, connection)

    def _confirm(self, connection: C) -> None:
        """Hand the subscriptions of a connection that have been read to its session."""
        reads = self._read.pop(connection)
        try:
            opened = self._confirmed(connection, reads)
            if opened is not None:
                self._on_opened(connection, opened)
        finally:
            for read in reads:
                self._end_read(connection, read.slot_bytes)

    def _confirmed(self, connection: C, reads: Sequence[_Read]) -> SubscriptionsOpened | None:
        """Continue the histories with what was received meanwhile. None: none of them is opened now."""
        try:
            opened = self._merge(connection, reads)
        except Exception as error:  # noqa: BLE001 - a defect, which its receiver logs
            self._on_failed(connection, [read.plan.channel for read in reads], error)
            return None
        return opened if opened.histories else None

    def _merge(self, connection: C, reads: Sequence[_Read]) -> SubscriptionsOpened:
        """Merge what was read. What does not reach what was received is read again."""
        histories: dict[str, History | None] = {}
        continued: list[str] = []
        resets: list[tuple[C, str]] = []
        room = self._room_in(connection)
        for one in reads:
            plan, history = one.plan, one.history
            channel = plan.channel
            if plan.read is None or history is None:
                histories[channel] = None
                continue
            page = self._state.merge_one(channel, plan.read, history, room, resets)
            if page is None:
                self._spawn(self._read_again(connection, plan, one.attempt + 1))
                continue
            histories[channel] = page.history
            if page.history.publications:
                room -= sum(publication.size for publication in page.history.publications)
            if page.is_continued:
                continued.append(channel)
        for other, channel in resets:
            self._on_reset(other, channel)
        return SubscriptionsOpened(histories, continued)

    def _end_read(self, connection: C, slot_bytes: int) -> None:
        if slot_bytes:
            self._slots.give_back(connection, slot_bytes)

    # ----------------------------------------------------------------------------------------------- together

    async def _open_together(self, connection: C, plans: Sequence[SubscriptionPlan]) -> None:
        if any(plan.read is not None and plan.read.since is not None for plan in plans):
            async with self._slots.slot(connection, WAIT_SECONDS, self._largest_bytes):
                self._on_opened(connection, await self._read_together(connection, plans))
        else:
            self._on_opened(connection, await self._read_together(connection, plans))

    async def _read_together(self, connection: C, plans: Sequence[SubscriptionPlan]) -> SubscriptionsOpened:
        engine = self._engine
        await asyncio.gather(*(engine.broker.subscribe(plan.channel) for plan in plans))
        await asyncio.gather(*(self._add_presence(plan) for plan in plans if plan.options.presence))
        with_history = [(plan, plan.read) for plan in plans if plan.read is not None]
        for _ in range(READ_ATTEMPTS):
            page_bytes = max(1, self._room_in(connection) // max(1, len(with_history)))
            histories = await asyncio.gather(
                *(
                    engine.broker.read_history(plan.channel, _query(read, page_bytes), plan.options)
                    for plan, read in with_history
                )
            )
            read = {plan.channel: history for (plan, _), history in zip(with_history, histories, strict=True)}
            merged = self._state.merge(plans, read, self._room_in(connection))
            for other, channel in merged.resets:
                self._on_reset(other, channel)
            if merged.opened is not None:
                return merged.opened
        raise EngineError(NOT_REACHED)

    def _room_in(self, connection: C) -> int:
        """How many bytes of a page a client has room for."""
        return self._page_bytes - connection.queued_bytes

    def _shared_room_in(self, connection: C) -> int:
        """The same, at least 1, and rounded down so that clients share reads."""
        steps = ROOM_STEPS * self._room_in(connection) // self._page_bytes
        return max(1, self._page_bytes * steps // ROOM_STEPS)


def _query(read: HistoryRead, page_bytes: int = 0, *, may_be_empty: bool = False) -> HistoryQuery:
    if read.is_latest:
        return HistoryQuery(limit=1, is_reverse=True)
    if read.since is None:
        return TOP_ONLY
    return HistoryQuery(read.since, read.limit, limit_bytes=page_bytes, may_be_empty=may_be_empty)
