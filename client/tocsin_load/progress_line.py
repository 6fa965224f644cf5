"""The progress of a run, in one line that changes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from .histogram import Histogram, format_duration
from .rate_publisher import RatePublisher
from .worker_pool import WorkerPool

SHORTEST_SECONDS = 0.4  # between two updates: each worker reports twice a second


class ProgressLine:
    """The line on a terminal. If the output is not a terminal, each phase is printed as a line instead.

    The mutable state is the phase and the number of deliveries at the last update.
    """

    def __init__(self, connections: int, console: Console) -> None:
        self._connections = connections
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._spinner = Spinner("dots")
        self._phase = ""
        self._workers: WorkerPool | None = None
        self._publisher: RatePublisher | None = None
        self._last_update = (time.monotonic(), 0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def show_phase(self, name: str, workers: WorkerPool, publisher: RatePublisher) -> None:
        """Show the next phase."""
        self._phase, self._workers, self._publisher = name, workers, publisher
        if not self._console.is_terminal:
            self._console.print(Text(f"{name}: {workers.subscribed:,} connected"))

    def update(self) -> None:
        """Show the current figures, unless the last update is too recent."""
        now = time.monotonic()
        since, delivered = self._last_update
        if self._workers is None or self._publisher is None or now - since < SHORTEST_SECONDS:
            return
        rate = (self._workers.delivered - delivered) / (now - since)
        latency, self._workers.latency = self._workers.latency, Histogram()
        self._last_update = (now, self._workers.delivered)
        if self._live.is_started:
            self._spinner.update(text=self._line(self._workers, self._publisher, rate, latency))
            self._live.update(self._spinner)

    def _line(self, workers: WorkerPool, publisher: RatePublisher, rate: float, latency: Histogram) -> Text:
        line = Text(f"{self._phase}  ")
        line.append(f"{workers.subscribed:,}/{self._connections:,}", style="bold").append(" connected · ")
        line.append(f"{publisher.acknowledged_count:,}", style="bold").append(" published · ")
        line.append(f"{rate:,.0f}", style="bold").append(" delivered/s")
        if latency.total:
            p50, p99 = (format_duration(latency.quantile(share)) for share in (0.5, 0.99))
            line.append(f" · p50 {p50} p99 {p99}")
        if failures := sum(workers.failures.values()):
            line.append(f" · {failures:,} failed or broke", style="yellow")
        return line
