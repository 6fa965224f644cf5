"""`make bench`: measures, prints a table, exits 1 if a figure misses what is asked of it."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import servers
from tests.bench.fanout import cpu_per_delivery
from tests.bench.latency import ping_while_writing
from tests.bench.memory import bytes_per_connection


@dataclass(frozen=True)
class Figure:
    """One thing measured: what it is, by what it is divided, and what is asked of the ratio."""

    what: str
    measured: str
    ratio: float
    asked: str
    is_met: bool


async def measure() -> list[Figure]:
    """Everything, one after the other; each ratio from contenders that ran side by side."""
    figures = []
    own = {"floor": servers.floor, "tocsin": servers.tocsin}
    side_by_side = await cpu_per_delivery({**own, "starlette": servers.starlette}, count=1000, publications=8)
    at_floor = side_by_side["tocsin"] / side_by_side["floor"]
    at_route = side_by_side["tocsin"] / side_by_side["starlette"]
    cost = f"{side_by_side['tocsin']:.2f} µs"
    figures.append(
        Figure(
            "delivery, 1,000 subscribers / bare transports",
            f"{cost} / {side_by_side['floor']:.2f} µs",
            at_floor,
            "≤ 1.3",
            at_floor <= 1.3,
        )
    )
    figures.append(
        Figure(
            "delivery, 1,000 subscribers / Starlette send_text",
            f"{cost} / {side_by_side['starlette']:.2f} µs",
            at_route,
            "≤ 0.6",
            at_route <= 0.6,
        )
    )
    for count, publications in ((100, 40), (10_000, 1)):
        sized = await cpu_per_delivery(own, count, publications)
        ratio = sized["tocsin"] / sized["floor"]
        figures.append(
            Figure(
                f"delivery, {count:,} subscribers / bare transports",
                f"{sized['tocsin']:.2f} µs / {sized['floor']:.2f} µs",
                ratio,
                f"within 20 % of {at_floor:.2f}",
                ratio <= at_floor * 1.2,
            )
        )
    burst = (await cpu_per_delivery({"tocsin": servers.tocsin}, 1000, 1, burst=300))["tocsin"]
    gain = side_by_side["tocsin"] / burst
    figures.append(
        Figure(
            "deliveries per CPU second, burst of 300 / one by one",
            f"{burst:.3f} µs / {cost}",
            gain,
            "≥ 5",
            gain >= 5,
        )
    )
    median, high = await ping_while_writing(10_000, seconds=8)
    figures.append(
        Figure(
            "ping while 10,000 are written to",
            f"median {median:.1f} ms, p99 {high:.1f} ms",
            median,
            "≤ 50 ms",
            median <= 50,
        )
    )
    mine, route = await bytes_per_connection("tocsin", 3000), await bytes_per_connection("starlette", 3000)
    share = mine / route
    figures.append(
        Figure(
            "memory per idle subscribed connection / Starlette route",
            f"{mine / 1024:.1f} KiB / {route / 1024:.1f} KiB",
            share,
            "≤ 0.6",
            share <= 0.6,
        )
    )
    return figures


def main() -> None:
    """Measure and print."""
    servers.raise_file_limit()
    gc.freeze()
    figures = uvloop.run(measure())
    table = Table("figure", "measured", "ratio", "asked", title="Tocsin, each figure a ratio inside this run")
    for figure in figures:
        mark = "[green]" if figure.is_met else "[red]"
        table.add_row(figure.what, figure.measured, f"{mark}{figure.ratio:.2f}", figure.asked)
    Console().print(table)
    sys.exit(not all(figure.is_met for figure in figures))


if __name__ == "__main__":
    main()
