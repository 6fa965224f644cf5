"""A real engine whose calls can be made to fail, to wait, or to take their time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.memory.presence import MemoryPresenceStore


class FaultyEngine(MemoryEngine):
    """Calls by name: `failing` raise, `held` wait for their event, the others take `turns()` of the loop.

    Whatever they are made to do, the calls to one service are carried out in the order in which they came.
    """

    def __init__(self, turns: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self.failing: dict[str, Exception] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.calls: Counter[str] = Counter()
        self.why_not = ""
        self._turns = turns
        self._locks: dict[int, asyncio.Lock] = {}

    @property
    def broker(self) -> MemoryBroker:
        return cast("MemoryBroker", _Hindered(self._broker, self))

    @property
    def presence(self) -> MemoryPresenceStore:
        return cast("MemoryPresenceStore", _Hindered(self._presence, self))

    @property
    def unready_reason(self) -> str:
        return self.why_not or super().unready_reason

    def hold(self, name: str) -> asyncio.Event:
        """Let calls of this name wait, until the event is set."""
        return self.held.setdefault(name, asyncio.Event())

    def line_of(self, service: object) -> AbstractAsyncContextManager[None]:
        """Where calls to a service wait for each other."""
        return self._locks.setdefault(id(service), asyncio.Lock())

    async def delay(self, name: str) -> None:
        """What happens to a call before it is carried out."""
        self.calls[name] += 1
        if name in self.held:
            await self.held[name].wait()
        for _ in range(self._turns()):
            await asyncio.sleep(0)
        if name in self.failing:
            raise self.failing[name]


class _Hindered:
    """One service of the engine."""

    def __init__(self, service: object, engine: FaultyEngine) -> None:
        self._service = service
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            async with self._engine.line_of(self._service):
                await self._engine.delay(name)
                return await getattr(self._service, name)(*arguments, **options)

        return call
