"""`make bench`: measures, prints a table, and exits 1 if a figure misses its target.

With arguments (`ARGS=nodes`) it measures only the named parts.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import servers
from tests.bench.api_requests import cpu_per_publish
from tests.bench.capacity import constants
from tests.bench.connecting import HOOKS, cpu_per_connection
from tests.bench.crowd import cpu_per_returning_client
from tests.bench.fanout import cpu_per_delivery
from tests.bench.hop import Hop, measure_hops
from tests.bench.idle_node import HEARTBEAT_BYTES, traffic_of_an_idle_node
from tests.bench.latency import ping_while_writing
from tests.bench.memory import bytes_per_connection
from tests.bench.outbox import entries_per_cpu_second, rows_per_cpu_second
from tests.bench.proxies import cpu_per_call
from tests.bench.publishing import per_cpu_second
from tests.bench.redis_requests import BACK_ENDS, cpu_by_engine
from tests.bench.tokens import token_costs
from tests.bench.turns import Turns
from tests.bench.workers import CONNECTIONS, announcements, imbalance
from tocsin_server.logging import configure_logging
from tocsin_server.transports.websocket.framing import DEFLATED_FRAMING, RAW_FRAMING


@dataclass(frozen=True)
class Figure:
    """One measured figure and its target."""

    name: str
    measured: str
    target: str
    is_met: bool


Figures = AsyncIterator[Figure]


async def one_node() -> Figures:
    """Fan-out and connections. The contenders of each ratio take turns."""
    two = ["bare", "tocsin"]
    side_by_side = await cpu_per_delivery([*two, "starlette"], 1000, publications=8)
    cost, bare, route = (side_by_side[name] for name in ("tocsin", "bare", "starlette"))
    yield at_most("a delivery, 1,000 subscribers : bare transports", cost, bare, "µs", 1.3)
    yield at_most("a delivery, 1,000 subscribers : Starlette's send_text", cost, route, "µs", 0.6)
    limit = cost / bare * 1.2
    few = await cpu_per_delivery(two, 100, publications=40)
    yield at_most("a delivery, 100 subscribers : bare transports", few["tocsin"], few["bare"], "µs", limit)
    channels = await cpu_per_delivery(["bare_channels", "tocsin_channels"], 1000, publications=8)
    yield at_most(
        f"a delivery, {servers.CHANNELS} channels with 100 subscribers each : bare transports",
        channels["tocsin_channels"],
        channels["bare_channels"],
        "µs",
        limit,
    )
    many = await cpu_per_delivery(two, 10_000, publications=1)
    yield at_most(
        "a delivery, 10,000 subscribers : bare transports", many["tocsin"], many["bare"], "µs", limit
    )
    joined = await cpu_per_delivery(["tocsin"], 1000, 1, burst=300)
    yield at_most("a delivery, burst of 300 : one at a time", joined["tocsin"], cost, "µs", 1 / 5)
    streamed = await cpu_per_delivery(["tocsin", "http_stream"], 1000, publications=8)
    yield at_most(
        "a delivery over http_stream : over WebSocket",
        streamed["http_stream"],
        streamed["tocsin"],
        "µs",
        1.6,
    )
    compressed = await cpu_per_delivery(["plain", "deflated"], 1000, publications=8)
    yield at_most(
        "a delivery of 2 KiB, compressed : not compressed",
        compressed["deflated"],
        compressed["plain"],
        "µs",
        1.1,
    )
    size, deflated = (
        len(framing.pack("bench", [servers.DOCUMENT_PUSH])) for framing in (RAW_FRAMING, DEFLATED_FRAMING)
    )
    yield at_most("its bytes, compressed : not compressed", deflated, size, "bytes", 0.5)
    deltas = await cpu_per_delivery(["delta", "without_delta"], 1000, publications=8)
    yield at_most(
        "a delivery as a delta, 1,000 subscribers : the same bytes without",
        deltas["delta"],
        deltas["without_delta"],
        "µs",
        1.3,
    )
    median, high = await ping_while_writing(10_000, seconds=8)
    yield Figure(
        "a ping while 10,000 clients are written to, median (p99)",
        f"{median:.1f} ({high:.1f}) ms",
        "≤ 50 ms",
        median <= 50,
    )
    connecting = await cpu_per_connection()
    yield at_most(
        "connect, subscribe and leave : without limits",
        connecting["checked"],
        connecting["unchecked"],
        "µs",
        1.1,
    )
    yield at_most(
        "connect, subscribe and leave : a bare WebSocket, two messages",
        connecting["checked"],
        connecting["bare_websocket"],
        "µs",
        1.5,
    )
    hooks = await cpu_per_connection(HOOKS, rounds=25, connections=150)
    for name, kinds, limit in (
        ("a hook", "a connect hook", 1.2),
        ("two hooks", "and a subscribe hook", 1.2),
    ):
        yield at_most(
            f"connect, subscribe and leave, with {kinds} that answers at once : without hooks",
            hooks[name],
            hooks["without hooks"],
            "µs",
            limit,
        )
    mine, theirs = [await bytes_per_connection(name, 3000) / 1024 for name in ("tocsin", "starlette")]
    yield at_most("memory of an idle subscriber : of one on a Starlette route", mine, theirs, "KiB", 0.6)


async def codecs() -> Figures:
    """Fan-out to clients that speak JSON, protobuf, or each of them one half. They take turns."""
    names = ["tocsin", "protobuf", "mixed"]
    for count, publications, burst in ((1000, 8, 1), (1000, 1, 300)):
        cost = await cpu_per_delivery(names, count, publications, burst)
        which = f"{count:,} subscribers" if burst == 1 else f"{count:,} subscribers, a burst of {burst}"
        unit, json = "µs", cost["tocsin"]
        yield at_most(f"a delivery over protobuf, {which} : over JSON", cost["protobuf"], json, unit, 1.05)
        yield at_most(f"a delivery, half protobuf, {which} : over JSON", cost["mixed"], json, unit, 1.1)


async def api_requests() -> Figures:
    """Publishing by HTTP with an engine in memory. The contenders take turns."""
    turns = await cpu_per_publish()
    yield of_turns("a publication by HTTP : an ASGI function that answers", turns, "single", "bare", 1.3)
    yield of_turns("a publication in a batch of 100 : by itself", turns, "batch", "single", 0.12)


async def several_nodes() -> Figures:
    """Node processes over a real Redis. The contenders take turns."""
    hop, slow = await measure_hops()
    for which, mine, bare in zip(Hop._fields, hop["node"], hop["bare"], strict=True):
        yield at_most(f"a hop from node to node, {which} : bare redis-py", mine, bare, "ms", 2)
    for which, mine, bare in zip(Hop._fields, hop["api"], hop["bare"], strict=True):
        yield at_most(f"the same, from an HTTP request on, {which}", mine, bare, "ms", math.inf)
    for number, (which, limit) in enumerate(zip(Hop._fields, (1.3, 1.5), strict=True)):
        yield at_most(
            f"a hop from an HTTP request on, 100 a second, {which} : bare redis-py + a bare ASGI request",
            slow["api"][number],
            slow["bare"][number] + slow["request"][number],
            "ms",
            limit,
        )
    turns = await cpu_by_engine()
    for which, back_ends in (("", "one back end"), (", many", f"{BACK_ENDS} back ends at once")):
        ratios = {
            "over Redis : in memory": ("redis", "memory", math.inf if which else 1.5),
            "over Redis : a bare function with the same command": ("redis", "bare over Redis", math.inf),
            "that function : one that only answers": ("bare over Redis", "bare", math.inf),
        }
        for name, (one, other, limit) in ratios.items():
            what = f"CPU of a publication by HTTP, {back_ends}, {name}"
            yield of_turns(what, turns, one + which, other + which, limit)
    yield of_turns(
        "over Redis, in a batch of 100 : in memory", turns, "redis, batch", "memory, batch", math.inf
    )
    publishes = await per_cpu_second()
    yield at_least(
        "publishes for a CPU second, in a batch : one for each request",
        publishes["batch"],
        publishes["single"],
        3,
    )
    for name, count in (
        ("rows of an outbox", await rows_per_cpu_second()),
        ("entries of the publish stream", await entries_per_cpu_second()),
    ):
        yield at_least(f"{name} for a CPU second : publishes in a batch", count, publishes["batch"], 0.5)
    idle, beside, published = await traffic_of_an_idle_node()
    extra = beside.bytes - idle.bytes
    yield Figure(
        "a node's bytes to and from Redis for channels without a subscriber on it",
        f"{extra:+,} beside {idle.bytes:,} of heartbeats, {published:,} published",
        "0, ± 1 heartbeat",
        abs(extra) <= HEARTBEAT_BYTES,
    )


async def crowd() -> Figures:
    """5,000 clients that return to a node at once, over a real Redis."""
    cost = await cpu_per_returning_client()
    node, bare = cost.node_us, cost.bare_us
    yield at_most("a returning client that recovers three channels : a bare WebSocket", node, bare, "µs", 6.5)
    yield at_most("the same, CPU of Redis : of the node", cost.redis_us, node, "µs", 0.1)
    yield at_most(
        "the same, CPU of the node when it leaves : when it comes", cost.leave_us, node, "µs", math.inf
    )
    yield Figure(
        "a ping of another client meanwhile, median (longest)",
        f"{cost.ping_ms:.1f} ({cost.longest_ping_ms:.0f}) ms",
        "≤ 50 ms",
        cost.ping_ms <= 50,
    )


async def several_workers() -> Figures:
    """Workers on one port."""
    for which, ratio in zip(
        ("at once", "one by one", "after a worker was replaced"), await imbalance(), strict=True
    ):
        name = f"the most connections of 4 workers : the mean, {CONNECTIONS:,} clients, {which}"
        yield Figure(name, f"{ratio:.3f}", "≤ 1.15", ratio <= 1.15)
    messages, size, elsewhere = await announcements()
    yield Figure(
        "messages that Redis sends for a publication of 128 bytes to 4 workers; to one of them",
        f"{messages:g}; {elsewhere:g} ({size:,.0f} bytes in all)",
        "4; 1",
        (messages, elsewhere) == (4, 1),
    )


async def capacity() -> Figures:
    """The constants of docs/capacity.md that no other part measures. They have no targets."""
    for name, value in (await constants()).items():
        unit = "" if name.startswith("bytes") else " µs"
        yield Figure(name, f"{value:.3g}{unit}", "none", is_met=True)


async def tokens() -> Figures:
    """What it costs to decide about a token."""
    cost = token_costs()
    yield at_most("a token with a secret : PyJWT alone", cost.secret, cost.pyjwt, "µs", 1)
    yield at_most("a token of an issuer : its RSA signature alone", cost.issuer, cost.rsa, "µs", 4)
    yield at_most("looking up 100,000 revocations : a token", cost.revoked, cost.secret, "µs", 0.1)


async def proxies() -> Figures:
    """What a node spends on a call that a back end answers over HTTP."""
    cost = await cpu_per_call()
    share = cost["proxy"] - cost["hook"]
    yield Figure(
        "CPU of a node for an RPC by an HTTP proxy, less one by a hook in Python (bare aiohttp)",
        f"{cost['proxy']:.0f} - {cost['hook']:.0f} = {share:.0f} µs ({cost['bare']:.0f} µs)",
        "≤ 250 µs",
        share <= 250,
    )


PARTS = {
    "node": one_node,
    "codecs": codecs,
    "api": api_requests,
    "nodes": several_nodes,
    "crowd": crowd,
    "workers": several_workers,
    "capacity": capacity,
    "tokens": tokens,
    "proxies": proxies,
}


def at_most(what: str, one: float, other: float, unit: str, limit: float) -> Figure:
    """A ratio with an upper limit. With an infinite limit it has no target."""
    return _at_most(what, f"{one:.3g} : {other:.3g} {unit}", one / other, limit)


def of_turns(what: str, turns: Turns, one: str, other: str, limit: float) -> Figure:
    """The same for contenders that took turns: the median times, and the median ratio in a round."""
    times = f"{turns.median(one):.3g} : {turns.median(other):.3g} µs"
    return _at_most(what, times, turns.ratio(one, other), limit)


def _at_most(what: str, values: str, ratio: float, limit: float) -> Figure:
    target = f"≤ {limit:.2f}" if limit < math.inf else "none"
    return Figure(what, f"{values} = {ratio:.2f}", target, ratio <= limit)


def at_least(what: str, one: float, other: float, limit: float) -> Figure:
    """A ratio with a lower limit."""
    ratio = one / other
    return Figure(what, f"{one:,.0f} : {other:,.0f} = {ratio:.2f}", f"≥ {limit:.2f}", ratio >= limit)


async def measure(parts: Sequence[str]) -> Figures:
    """The figures of these parts, one after the other."""
    for part in parts:
        async for figure in PARTS[part]():
            yield figure


async def print_figures(parts: Sequence[str]) -> bool:
    """Print each figure when it is known. True if all figures meet their targets."""
    console = Console()
    table = Table("figure", "measured", "target", title="Tocsin, each figure a ratio within this run")
    missed = 0
    async for figure in measure(parts):
        missed += not figure.is_met
        color = "green" if figure.is_met else "red"
        table.add_row(figure.name, f"[{color}]{figure.measured}", figure.target)
        console.print(f"[dim]{figure.name}: {figure.measured}")
    console.print(table)
    return not missed


def main() -> None:
    """Measure and print."""
    configure_logging("warning")
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{' or '.join(PARTS)}; without one, all")
    parts = parser.parse_args().parts
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    servers.raise_file_limit()
    sys.exit(not uvloop.run(print_figures(parts or list(PARTS))))


if __name__ == "__main__":
    main()
