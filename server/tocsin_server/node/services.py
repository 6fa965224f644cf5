"""What runs together with a node, besides its connections: contexts, background work, and their warnings.

Parts above the node add it before the node runs, such as proxies, sources and deliveries. The mutable state
is what was added; only the methods of `Services` change it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

Context = Callable[[], AbstractAsyncContextManager[object]]
"""Opens what a part needs while the node runs, such as connections to a back end."""


class BackgroundWork(Protocol):
    """Work of a node while it runs, in one task of the node."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the operator should know now, as sentences."""

    async def run(self) -> None:
        """Work until it is ended. The node cancels it if it does not end within STOP_SECONDS."""

    def drain(self) -> None:
        """The node drains: release what other nodes may continue with. Idempotent."""

    def stop(self) -> None:
        """The node stops, and has written its last lifecycle events: end. Idempotent."""


class Services:
    """The services of one node."""

    def __init__(self) -> None:
        self._contexts: list[Context] = []
        self._work: list[BackgroundWork] = []
        self._warnings: list[Callable[[], Iterable[str]]] = []
        self._has_started = False

    def __iter__(self) -> Iterator[BackgroundWork]:
        """Iterate over the background work."""
        return iter(self._work)

    def add_context(self, context: Context) -> None:
        """Enter a context before the node serves connections, and leave it after the last of them."""
        self._require_not_started()
        self._contexts.append(context)

    def add_work(self, work: BackgroundWork) -> None:
        """Do work whenever the node runs."""
        self._require_not_started()
        self._work.append(work)

    def add_warnings(self, warnings: Callable[[], Iterable[str]]) -> None:
        """Have `/health/ready` and `info` show the sentences that a function returns."""
        self._warnings.append(warnings)

    @property
    def warnings(self) -> list[str]:
        """What the operator should know now, as sentences."""
        added = [sentence for warnings in self._warnings for sentence in warnings()]
        return added + [sentence for work in self._work for sentence in work.warnings]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be in all contexts."""
        self._has_started = True
        async with AsyncExitStack() as stack:
            for context in self._contexts:
                await stack.enter_async_context(context())
            yield

    def drain(self) -> None:
        """Tell the background work that the node drains."""
        for work in self._work:
            work.drain()

    def stop(self) -> None:
        """Tell the background work that the node stops."""
        for work in self._work:
            work.stop()

    def _require_not_started(self) -> None:
        if self._has_started:
            raise RuntimeError("services are added before the node runs")
