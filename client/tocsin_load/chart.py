"""A chart of a run in SVG: latency and deliveries over time, and the distribution of latency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log10

from .histogram import Histogram, format_duration
from .report import Report

WIDTH, HEIGHT = 960, 640
LEFT, RIGHT = 90.0, 930.0
TIME_TOP, TIME_BOTTOM = 70.0, 300.0
BARS_TOP, BARS_BOTTOM = 390.0, 590.0
MOST_BARS = 60
LINES = (("p50", 0.5, "#2a9d8f"), ("p90", 0.9, "#e9a03b"), ("p99", 0.99, "#d1495b"))


def draw(report: Report) -> str:
    """Return a complete SVG document."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="#333">'
    )
    parts = [
        head,
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 30, _title(report), size=16),
        *_over_time(report.seconds),
        *_distribution(report.latency),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _title(report: Report) -> str:
    deliveries = report.deliveries
    return (
        f"{report.connected:,} connections, {report.acknowledged:,} publications, "
        f"{report.delivered:,} deliveries; lost {deliveries.lost:,}, duplicated {deliveries.duplicated:,}, "
        f"reordered {deliveries.reordered:,}, in gaps {deliveries.in_gaps:,}"
    )


def _over_time(seconds: dict[int, Histogram]) -> Iterator[str]:
    yield _text(LEFT, TIME_TOP - 12, "latency over time (lines, logarithmic) and deliveries a second (grey)")
    if not seconds:
        return
    first, last = min(seconds), max(seconds)
    step = (RIGHT - LEFT) / (last - first + 1)
    most = max(one.total for one in seconds.values())
    for second, one in sorted(seconds.items()):
        height = (TIME_BOTTOM - TIME_TOP) * one.total / most
        yield _rectangle(LEFT + (second - first) * step, TIME_BOTTOM - height, step * 0.9, height, "#e4e7eb")
    scale = _Scale([one.quantile(share) for one in seconds.values() for _, share, _ in LINES])
    yield from scale.lines()
    for index, (name, share, color) in enumerate(LINES):
        points = " ".join(
            f"{LEFT + (second - first + 0.5) * step:.1f},{scale.height(one.quantile(share)):.1f}"
            for second, one in sorted(seconds.items())
        )
        yield f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
        yield _text(RIGHT - 130 + 45 * index, TIME_TOP - 12, name, color=color)
    yield _text(LEFT, TIME_BOTTOM + 18, "0 s")
    yield _text(RIGHT, TIME_BOTTOM + 18, f"{last - first + 1} s; at most {most:,} deliveries/s", anchor="end")


def _distribution(latency: Histogram) -> Iterator[str]:
    yield _text(LEFT, BARS_TOP - 12, "distribution of latency, publish to receipt")
    bars = latency.bars(MOST_BARS)
    if not bars:
        return
    most = max(times for _, _, times in bars)
    step = (RIGHT - LEFT) / len(bars)
    for index, (start, end, times) in enumerate(bars):
        height = (BARS_BOTTOM - BARS_TOP) * times / most
        left = LEFT + index * step
        label = f"{format_duration(start)} to {format_duration(end)}: {times:,}"
        yield _rectangle(left, BARS_BOTTOM - height, step * 0.9, height, "#457b9d", label)
        if index % max(1, len(bars) // 6) == 0:
            yield _text(left, BARS_BOTTOM + 18, format_duration(start))
    yield _text(LEFT - 8, BARS_TOP + 10, f"{most:,}", anchor="end")


class _Scale:
    """A logarithmic axis from below the smallest value to above the greatest."""

    def __init__(self, values: Sequence[float]) -> None:
        self._low = log10(max(1e-6, min(values))) - 0.1
        self._high = log10(max(1e-6, *values)) + 0.1

    def height(self, seconds: float) -> float:
        share = (log10(max(1e-6, seconds)) - self._low) / (self._high - self._low)
        return TIME_BOTTOM - (TIME_BOTTOM - TIME_TOP) * share

    def lines(self, count: int = 5) -> Iterator[str]:
        for index in range(count):
            value = 10.0 ** (self._low + (self._high - self._low) * index / (count - 1))
            y = self.height(value)
            where = f'x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
            yield f'<line {where} stroke="#ccc" stroke-dasharray="2 4"/>'
            yield _text(LEFT - 8, y + 4, format_duration(value), anchor="end")


def _rectangle(x: float, y: float, width: float, height: float, color: str, label: str = "") -> str:
    title = f"<title>{label}</title>" if label else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}">'
        f"{title}</rect>"
    )


def _text(
    x: float, y: float, text: str, *, size: int = 13, anchor: str = "start", color: str = "#333"
) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {where} font-size="{size}" fill="{color}">{text}</text>'
