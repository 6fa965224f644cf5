"""The numbers of a run while it lasts, in one line that changes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live as RichLive
from rich.spinner import Spinner
from rich.text import Text

from .crew import Crew
from .histogram import Histogram, duration
from .publishing import Publishing

SHORTEST_SECONDS = 0.4  # between two looks: workers tell twice a second, each in its own time


class LiveLine:
    """What is shown until it is left; on something that is no terminal, one line for each phase."""

    def __init__(self, connections: int, console: Console) -> None:
        self._connections = connections
        self._console = console
        self._live = RichLive(console=console, refresh_per_second=4, transient=True)
        self._spinner = Spinner("dots")
        self._phase = ""
        self._crew: Crew | None = None
        self._publishing: Publishing | None = None
        self._before = (time.monotonic(), 0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def phase(self, name: str, crew: Crew, publishing: Publishing) -> None:
        """Something else begins."""
        self._phase, self._crew, self._publishing = name, crew, publishing
        if not self._console.is_terminal:
            self._console.print(Text(f"{name}: {crew.subscribed:,} connected"))

    def moved(self) -> None:
        """Show the numbers, unless they were shown just now."""
        now = time.monotonic()
        since, delivered = self._before
        if self._crew is None or self._publishing is None or now - since < SHORTEST_SECONDS:
            return
        rate = (self._crew.delivered - delivered) / (now - since)
        latency, self._crew.latency = self._crew.latency, Histogram()
        self._before = (now, self._crew.delivered)
        if self._live.is_started:
            self._spinner.update(text=self._line(self._crew, self._publishing, rate, latency))
            self._live.update(self._spinner)

    def _line(self, crew: Crew, publishing: Publishing, rate: float, latency: Histogram) -> Text:
        line = Text(f"{self._phase}  ")
        line.append(f"{crew.subscribed:,}/{self._connections:,}", style="bold").append(" connected · ")
        line.append(f"{publishing.total:,}", style="bold").append(" published · ")
        line.append(f"{rate:,.0f}", style="bold").append(" delivered/s")
        if latency.total:
            line.append(f" · p50 {duration(latency.quantile(0.5))} p99 {duration(latency.quantile(0.99))}")
        if failures := sum(crew.failures.values()):
            line.append(f" · {failures:,} failed or broke", style="yellow")
        return line
