"""The arithmetic of docs/capacity.md: its tables, computed from the table of constants on the same page.

`python -m tests.docs.capacity_model` writes the tables again, after a constant was measured again. A test
compares them. All times are seconds of one core, and all sizes bytes, unless a name says otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "capacity.md"

CONSTANT = re.compile(r"(?m)^\| `([a-z_]+)` \|[^|]*\| ([0-9.]+) ")
BEGIN, END = "<!-- computed: {} -->", "<!-- end -->"

CONNECTIONS = (10_000, 100_000, 1_000_000, 10_000_000)

BUSY = 0.6
"""Which part of a core is used: the rest is for peaks, such as clients that come back together."""

MOST_CONNECTIONS = 50_000
"""The most connections of one worker, however little they do."""

WORKER_BYTES = 80 * 2**20
"""What a worker needs without connections."""

PING_INTERVAL = 25
LIFETIME = 600
"""How long a connection lasts, on average."""

ROOM = 50
CONNECT_RATE = 1000
"""`limits.connect_rate` of a worker, by default."""

WIRE_BYTES = 260
"""A delivery of 128 bytes on the wire: the message, its frame, and the headers of TCP, IP and Ethernet."""

PING_WIRE_BYTES = 290
"""A ping, its pong and their acknowledgements on the wire."""

Constants = Mapping[str, float]
"""By key: microseconds, or bytes."""


@dataclass(frozen=True)
class Workload:
    """What clients do."""

    key: str
    publications: Callable[[float], float]
    """Publications a second, of so many connections."""
    receivers: Callable[[float], float]
    """Subscribers of each."""
    has_presence: bool = False
    is_batched: bool = False
    """Publications come in batches of 100, and are announced together."""

    def nodes(self, connections: float, workers: int) -> float:
        """How many workers have subscribers of a channel, on average, if they are spread by chance."""
        return workers * (1 - math.pow(1 - 1 / workers, self.receivers(connections)))

    def new_channels(self, connections: float, workers: int) -> float:
        """Which part of the subscriptions is the first of its channel at its worker."""
        return math.pow(1 - 1 / workers, self.receivers(connections) - 1)


WORKLOADS = (
    Workload("notifications", lambda n: n / 60, lambda _: 1),
    Workload("chat", lambda n: n / 60, lambda _: ROOM, has_presence=True),
    Workload("chat in batches", lambda n: n / 60, lambda _: ROOM, has_presence=True, is_batched=True),
    Workload("one channel", lambda _: 1, lambda n: n),
)


@dataclass(frozen=True)
class Need:
    """What an installation needs."""

    workers: int
    memory: float
    redis_cpu: float
    """Cores of Redis, without `heartbeats`."""
    heartbeats: float
    """Cores of the one Redis that has the leases."""
    redis_output: float
    """Bytes a second."""
    network: float
    """Bytes a second to and from clients."""
    return_seconds: float
    """Until the clients of a worker that died are connected again."""


def constants_of(page: str) -> Constants:
    """The constants of the page, in microseconds or bytes."""
    return {key: float(value) for key, value in CONSTANT.findall(page)}


def node_cpu(constants: Constants, workload: Workload, connections: float, workers: int) -> float:
    """Cores that all workers use together."""
    publications = workload.publications(connections)
    deliveries = publications * workload.receivers(connections)
    new = workload.new_channels(connections, workers)
    announcements = publications * workload.nodes(connections, workers)
    return 1e-6 * (
        connections / PING_INTERVAL * constants["ping"]
        + connections / LIFETIME * ((1 - new) * constants["connect"] + new * constants["new_channel"])
        + publications * constants["batch" if workload.is_batched else "publish"]
        + announcements * constants["receive_together" if workload.is_batched else "receive"]
        + deliveries * constants["delivery"]
        + workers * constants["idle_node"]
    )


def workers_for(constants: Constants, workload: Workload, connections: float) -> int:
    """The fewest workers that are busy for `BUSY` of their time at most. Each costs announcements, too."""
    workers = math.ceil(connections / MOST_CONNECTIONS)
    while node_cpu(constants, workload, connections, workers) > BUSY * workers:
        workers = max(workers + 1, math.ceil(1.01 * workers))
    return workers


def need(constants: Constants, workload: Workload, connections: float) -> Need:
    """What so many connections need under this workload."""
    workers = workers_for(constants, workload, connections)
    publications = workload.publications(connections)
    announcements = publications * workload.nodes(connections, workers)
    subscribes = connections / LIFETIME
    return Need(
        workers=workers,
        memory=connections * (constants["memory"] + constants["kernel_memory"]) * 1024
        + workers * WORKER_BYTES,
        redis_cpu=1e-6
        * (
            publications * constants["redis_batch" if workload.is_batched else "redis_publish"]
            + announcements * constants["redis_announce"]
            + subscribes * workload.has_presence * constants["redis_presence"]
            + subscribes * workload.new_channels(connections, workers) * constants["redis_new_channel"]
        ),
        heartbeats=1e-6 * workers * (constants["redis_idle_node"] + workers * constants["redis_lease"]),
        redis_output=announcements * constants["announce_bytes"] + workers**2 * constants["lease_bytes"],
        network=publications * workload.receivers(connections) * WIRE_BYTES
        + connections / PING_INTERVAL * PING_WIRE_BYTES,
        return_seconds=return_seconds(constants, connections / workers, workers - 1),
    )


def return_seconds(constants: Constants, clients: float, others: int) -> float:
    """How long so many clients take to connect to other workers, or to what replaces a single worker."""
    spare = (1 - BUSY) * others or 1
    return max(clients * constants["new_channel"] * 1e-6 / spare, clients / (CONNECT_RATE * max(1, others)))


def table(constants: Constants, workload: Workload) -> str:
    """The rows of one workload, as Markdown."""
    lines = [
        "| connections | workers | memory | Redis, cores | heartbeats | output | network | clients back |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for connections in CONNECTIONS:
        one = need(constants, workload, connections)
        lines.append(
            f"| {connections:,} | {one.workers:,} | {one.memory / 2**30:,.1f} GiB | {_cores(one.redis_cpu)} "
            f"| {_cores(one.heartbeats)} | {_megabytes(one.redis_output)} MB/s "
            f"| {_megabytes(one.network)} MB/s | {max(0.1, one.return_seconds):.1f} s |"
        )
    return "\n".join(lines)


def _cores(cores: float) -> str:
    return "below 0.01" if cores < 0.01 else f"{cores:.2g}" if cores < 10 else f"{cores:,.0f}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f}" if size < 1e8 else f"{size / 1e6:,.0f}"


def with_tables(page: str) -> str:
    """The page with all tables computed from its constants."""
    constants = constants_of(page)
    for workload in WORKLOADS:
        begin = BEGIN.format(workload.key)
        head, _, rest = page.partition(begin)
        page = f"{head}{begin}\n{table(constants, workload)}\n{END}{rest.partition(END)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
