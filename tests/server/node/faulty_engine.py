"""A memory engine whose calls can be made to fail, to block, or to take several turns of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.engine import EngineHandler, EngineHealth
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.memory.presence import MemoryPresenceStore
from tocsin_server.engine.memory.user_connections import MemoryUserConnections
from tocsin_server.protocol.messages import Position


class FaultyEngine(MemoryEngine):
    """An engine whose calls are hindered by name.

    Calls in `failures` raise, calls in `blocked` wait for their event, and each takes `turns()` turns of the
    event loop. The calls to one service are carried out in the order in which they came.
    """

    def __init__(self, turns: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self.failures: dict[str, Exception] = {}
        self.blocked: dict[str, asyncio.Event] = {}
        self.calls: Counter[str] = Counter()
        self.forced_unready_reason = ""
        self.starts = 0
        self.forced_warnings: tuple[str, ...] = ()
        self._turns = turns
        self._locks: dict[int, asyncio.Lock] = {}

    async def start(self, handler: EngineHandler) -> None:
        self.starts += 1
        await asyncio.sleep(0)
        await super().start(handler)

    @property
    def broker(self) -> MemoryBroker:
        return cast("MemoryBroker", _FaultyService(self._broker, self))

    @property
    def presence(self) -> MemoryPresenceStore:
        return cast("MemoryPresenceStore", _FaultyService(self._presence, self))

    @property
    def users(self) -> MemoryUserConnections:
        return cast("MemoryUserConnections", _FaultyService(self._users, self))

    @property
    def unready_reason(self) -> str:
        return self.forced_unready_reason or super().unready_reason

    @property
    def health(self) -> EngineHealth:
        return EngineHealth(warnings=self.forced_warnings)

    def block(self, name: str) -> asyncio.Event:
        """Block calls of this name until the returned event is set."""
        return self.blocked.setdefault(name, asyncio.Event())

    def lock_of(self, service: object) -> AbstractAsyncContextManager[None]:
        """Return the lock that keeps the calls to a service in order."""
        return self._locks.setdefault(id(service), asyncio.Lock())

    async def before_call(self, name: str) -> None:
        """Delay a call, or make it fail, before it is carried out."""
        self.calls[name] += 1
        if name in self.blocked:
            await self.blocked[name].wait()
        for _ in range(self._turns()):
            await asyncio.sleep(0)
        if name in self.failures:
            raise self.failures[name]


class _FaultyService:
    """One service of the engine."""

    def __init__(self, service: object, engine: FaultyEngine) -> None:
        self._service = service
        self._engine = engine

    def _wait(self, *_: object) -> None:
        """Do nothing at once, so that each call is one that can be hindered."""

    subscribe_now = unsubscribe_now = read_history_now = _wait

    def begin_publish(self, *arguments: Any) -> EagerFuture[Position]:
        """Publish in a task, so that a publish is a call that can be hindered."""
        published: EagerFuture[Position] = EagerFuture()

        def end(task: asyncio.Task[Position]) -> None:
            if published.done():
                return
            if error := asyncio.CancelledError() if task.cancelled() else task.exception():
                published.set_exception(error)
            else:
                published.set_result(task.result())

        asyncio.create_task(self.publish(*arguments)).add_done_callback(end)
        return published

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            async with self._engine.lock_of(self._service):
                await self._engine.before_call(name)
                return await getattr(self._service, name)(*arguments, **options)

        return call
