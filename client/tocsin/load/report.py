"""What came of a run: its numbers, as JSON and as a page for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .histogram import Histogram, duration
from .verdict import Verdict

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
MOST_BARS = 20
BAR_WIDTH = 44


class Report(Struct):
    """The numbers of one run; durations in seconds. ``seconds`` holds latencies by second of receipt."""

    connections: int
    connected: int
    connect_seconds: float
    lost_connections: int
    still_away: int
    sent: int
    acknowledged: int
    publish_seconds: float
    delivered: int
    foreign: int
    dead_workers: int
    verdict: Verdict
    connect_failures: dict[str, int]
    publish_failures: dict[str, int]
    returns: Histogram = field(default_factory=Histogram)
    latency: Histogram = field(default_factory=Histogram)
    seconds: dict[int, Histogram] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Nothing was lost, duplicated or reordered, and everything was looked at."""
        return self.verdict.is_clean and not self.dead_workers and self.connected > 0

    def add_second(self, second: int, latency: Histogram) -> None:
        """Add what a worker heard in one second."""
        self.seconds.setdefault(second, Histogram()).merge(latency)
        self.latency.merge(latency)

    def as_json(self) -> dict[str, Any]:
        """Give what ``--json`` writes; the times of ``over_time`` count from the first delivery."""
        verdict = self.verdict
        first = min(self.seconds, default=0)
        return {
            "connections": {
                "wanted": self.connections,
                "connected": self.connected,
                "seconds": round(self.connect_seconds, 3),
                "per_second": round(_rate(self.connected, self.connect_seconds), 1),
                "lost": self.lost_connections,
                "still_away": self.still_away,
                "failures": self.connect_failures,
                "back_after_seconds": _summary(self.returns),
            },
            "publications": {
                "sent": self.sent,
                "acknowledged": self.acknowledged,
                "per_second": round(_rate(self.acknowledged, self.publish_seconds), 1),
                "failures": self.publish_failures,
            },
            "deliveries": {
                "expected": verdict.expected,
                "heard": self.delivered,
                "per_second": round(_rate(self.delivered, self.publish_seconds), 1),
                "lost": verdict.lost,
                "duplicated": verdict.duplicated,
                "reordered": verdict.reordered,
                "told_of_hole": verdict.told,
                "lost_by_connections_still_away": verdict.unheard_away,
                "of_unacknowledged_publications": verdict.unacknowledged,
                "foreign": self.foreign,
            },
            "latency_seconds": _summary(self.latency),
            "over_time": [
                {"second": second - first, "delivered": one.total, **_summary(one)}
                for second, one in sorted(self.seconds.items())
            ],
            "workers_that_died": self.dead_workers,
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
    yield _judgement(report)


def _numbers(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("connections", _connections(report))
    if report.lost_connections:
        table.add_row("reconnects", _returns(report))
    publish_rate = _rate(report.acknowledged, report.publish_seconds)
    sent = f"of {report.sent:,} sent, {publish_rate:,.0f} a second"
    table.add_row("publications", f"{report.acknowledged:,} acknowledged {sent}")
    delivery_rate = _rate(report.delivered, report.publish_seconds)
    expected = f"of {report.verdict.expected:,} expected, {delivery_rate:,.0f} a second"
    if unacknowledged := report.verdict.unacknowledged:
        expected += f"; {unacknowledged:,} of publications whose answer was lost"
    table.add_row("deliveries", f"{report.delivered:,} heard {expected}")
    latency = report.latency
    table.add_row(
        "latency",
        "  ".join(f"{name} {duration(latency.quantile(share))}" for name, share in QUANTILES.items())
        + f"  max {duration(latency.longest)}",
    )
    return table


def _connections(report: Report) -> str:
    rate = _rate(report.connected, report.connect_seconds)
    return (
        f"{report.connected:,} of {report.connections:,} in {duration(report.connect_seconds)}, "
        f"{rate:,.0f} a second"
    )


def _returns(report: Report) -> str:
    returns = report.returns
    text = f"{report.lost_connections:,} connections lost, {returns.total:,} came back after "
    text += f"p50 {duration(returns.quantile(0.5))}, at most {duration(returns.longest)}"
    return text + (f"; {report.still_away:,} still away" if report.still_away else "")


def _bars(latency: Histogram) -> Iterator[Text]:
    bars = latency.bars(MOST_BARS)
    most = max(times for _, _, times in bars)
    for start, end, times in bars:
        bar = "█" * round(BAR_WIDTH * times / most) or ("▏" if times else "")
        line = Text(f"  {duration(start):>8} to {duration(end):<8} ")
        yield line.append(f"{bar:<{BAR_WIDTH}}", style="cyan").append(f" {times:,}")


def _judgement(report: Report) -> Text:
    verdict = report.verdict
    text = Text("\n")
    for name, value in (
        ("lost", verdict.lost),
        ("duplicated", verdict.duplicated),
        ("reordered", verdict.reordered),
    ):
        text.append(f"{name} {value:,}", style="bold red" if value else "bold green").append(" · ")
    text.append(f"told of a hole {verdict.told:,}", style="bold yellow" if verdict.told else "bold green")
    if verdict.unheard_away:
        text.append(f"\n{verdict.unheard_away:,} of the lost are of connections that were still away")
    if report.dead_workers:
        text.append(f"\n{report.dead_workers} worker processes died: their part is missing", style="bold red")
    if not report.connected:
        text.append("\nno connection came about", style="bold red")
    return text


def _summary(histogram: Histogram) -> dict[str, float]:
    summary = {name: round(histogram.quantile(share), 6) for name, share in QUANTILES.items()}
    return summary | {"max": round(histogram.longest, 6)}


def _by_times(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _rate(number: int, seconds: float) -> float:
    return number / seconds if seconds else 0.0
