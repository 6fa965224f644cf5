"""The report of a run: its figures, as JSON and as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .deliveries import Deliveries
from .histogram import Histogram, format_duration

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
MOST_BARS = 20
BAR_WIDTH = 44


class Report(Struct):
    """The figures of one run. Durations are in seconds; ``seconds`` has latencies by second of receipt."""

    connections: int
    connected: int
    connect_seconds: float
    lost_connections: int
    still_disconnected: int
    sent: int
    acknowledged: int
    publish_seconds: float
    delivered: int
    foreign: int
    dead_workers: int
    deliveries: Deliveries
    connect_failures: dict[str, int]
    publish_failures: dict[str, int]
    reconnects: Histogram = field(default_factory=Histogram)
    latency: Histogram = field(default_factory=Histogram)
    seconds: dict[int, Histogram] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """True if no delivery was lost, duplicated or reordered, and all workers reported."""
        return self.deliveries.is_clean and not self.dead_workers and self.connected > 0

    def add_second(self, second: int, latency: Histogram) -> None:
        """Add a worker's latencies of one second."""
        self.seconds.setdefault(second, Histogram()).merge(latency)
        self.latency.merge(latency)

    def as_json(self) -> dict[str, Any]:
        """Return the data of ``--json``. The seconds of ``over_time`` count from the first delivery."""
        deliveries = self.deliveries
        first = min(self.seconds, default=0)
        return {
            "connections": {
                "requested": self.connections,
                "connected": self.connected,
                "seconds": round(self.connect_seconds, 3),
                "per_second": round(_rate(self.connected, self.connect_seconds), 1),
                "lost": self.lost_connections,
                "still_disconnected": self.still_disconnected,
                "failures": self.connect_failures,
                "reconnect_seconds": _summary(self.reconnects),
            },
            "publications": {
                "sent": self.sent,
                "acknowledged": self.acknowledged,
                "per_second": round(_rate(self.acknowledged, self.publish_seconds), 1),
                "failures": self.publish_failures,
            },
            "deliveries": {
                "expected": deliveries.expected,
                "delivered": self.delivered,
                "per_second": round(_rate(self.delivered, self.publish_seconds), 1),
                "lost": deliveries.lost,
                "duplicated": deliveries.duplicated,
                "reordered": deliveries.reordered,
                "in_gaps": deliveries.in_gaps,
                "lost_by_disconnected": deliveries.lost_disconnected,
                "of_unacknowledged_publications": deliveries.unacknowledged,
                "foreign": self.foreign,
            },
            "latency_seconds": _summary(self.latency),
            "over_time": [
                {"second": second - first, "delivered": one.total, **_summary(one)}
                for second, one in sorted(self.seconds.items())
            ],
            "dead_workers": self.dead_workers,
        }


def show(report: Report, console: Console) -> None:
    """Print the report."""
    console.print(Group(*_page(report)))


def _page(report: Report) -> Iterator[RenderableType]:
    yield _numbers(report)
    for title, failures in (
        ("connections that failed or broke", report.connect_failures),
        ("publications that failed", report.publish_failures),
    ):
        if failures:
            yield Text(f"\n{title}", style="bold")
            yield from (
                Text(f"  {times:>9,}  {reason}") for reason, times in sorted(failures.items(), key=_by_times)
            )
    if report.latency.total:
        yield Text("\nlatency, publish to receipt", style="bold")
        yield from _bars(report.latency)
    yield _conclusion(report)


def _numbers(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("connections", _connections(report))
    if report.lost_connections:
        table.add_row("reconnects", _reconnects(report))
    publish_rate = _rate(report.acknowledged, report.publish_seconds)
    sent = f"of {report.sent:,} sent, {publish_rate:,.0f} a second"
    table.add_row("publications", f"{report.acknowledged:,} acknowledged {sent}")
    delivery_rate = _rate(report.delivered, report.publish_seconds)
    expected = f"of {report.deliveries.expected:,} expected, {delivery_rate:,.0f} a second"
    if unacknowledged := report.deliveries.unacknowledged:
        expected += f"; {unacknowledged:,} of publications without a response"
    table.add_row("deliveries", f"{report.delivered:,} {expected}")
    latency = report.latency
    table.add_row(
        "latency",
        "  ".join(f"{name} {format_duration(latency.quantile(share))}" for name, share in QUANTILES.items())
        + f"  max {format_duration(latency.longest)}",
    )
    return table


def _connections(report: Report) -> str:
    rate = _rate(report.connected, report.connect_seconds)
    return (
        f"{report.connected:,} of {report.connections:,} in {format_duration(report.connect_seconds)}, "
        f"{rate:,.0f} a second"
    )


def _reconnects(report: Report) -> str:
    reconnects = report.reconnects
    text = f"{report.lost_connections:,} connections lost, {reconnects.total:,} reconnected after "
    text += f"p50 {format_duration(reconnects.quantile(0.5))}, at most {format_duration(reconnects.longest)}"
    return text + (f"; {report.still_disconnected:,} still disconnected" if report.still_disconnected else "")


def _bars(latency: Histogram) -> Iterator[Text]:
    bars = latency.bars(MOST_BARS)
    most = max(times for _, _, times in bars)
    for start, end, times in bars:
        bar = "█" * round(BAR_WIDTH * times / most) or ("▏" if times else "")
        line = Text(f"  {format_duration(start):>8} to {format_duration(end):<8} ")
        yield line.append(f"{bar:<{BAR_WIDTH}}", style="cyan").append(f" {times:,}")


def _conclusion(report: Report) -> Text:
    deliveries = report.deliveries
    text = Text("\n")
    for name, value in (
        ("lost", deliveries.lost),
        ("duplicated", deliveries.duplicated),
        ("reordered", deliveries.reordered),
    ):
        text.append(f"{name} {value:,}", style="bold red" if value else "bold green").append(" · ")
    text.append(
        f"in gaps {deliveries.in_gaps:,}", style="bold yellow" if deliveries.in_gaps else "bold green"
    )
    if deliveries.lost_disconnected:
        text.append(
            f"\n{deliveries.lost_disconnected:,} of the losses by connections that were still disconnected"
        )
    if report.dead_workers:
        text.append(
            f"\n{report.dead_workers} worker processes died: their results are missing", style="bold red"
        )
    if not report.connected:
        text.append("\nno connection could be opened", style="bold red")
    return text


def _summary(histogram: Histogram) -> dict[str, float]:
    summary = {name: round(histogram.quantile(share), 6) for name, share in QUANTILES.items()}
    return summary | {"max": round(histogram.longest, 6)}


def _by_times(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _rate(number: int, seconds: float) -> float:
    return number / seconds if seconds else 0.0
