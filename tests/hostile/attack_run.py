"""One run of attacks: periods without them, with them on another system, and with them, in turn.

Attacker, nodes and honest clients share a machine. What the honest clients notice of an attack on another
system is the attacker's own load, which on the internet would be on another machine. So latencies are
compared with those of periods without an attack or with an attack on the other system, the higher ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.hostile.environment import Environment, Holding
from tests.hostile.honest_clients import Observation

RATIO_LIMIT = 2.0
"""How much higher the 99th percentile of honest round trips may be during an attack."""

MEMORY_LIMIT = 192 * 2**20
"""How many bytes a node may hold beyond those before: its allocator keeps what hundreds of clients needed."""

GROWTH_LIMIT = 32 * 2**20
"""How many bytes a node may hold beyond those after the first period with attacks. A leak grows with each."""

REDIS_LIMIT = 8 * 2**20
"""How many bytes Redis may hold after attacks beyond those before: histories that attackers published."""


KEYS_LIMIT = 500
"""How many keys Redis may have after attacks beyond those before: channels that attackers published into."""


@dataclass(frozen=True)
class Size:
    """How many periods there are of each kind, and how many seconds each takes."""

    periods: int
    seconds: float
    has_periods_elsewhere: bool = True


@dataclass(frozen=True)
class Result:
    """What one run found."""

    quiet: Observation
    """The medians of the periods without an attack."""
    elsewhere: Observation
    """The medians of the periods with the attack on another system."""
    attacked: Observation
    """The medians of the periods with it; the counts are sums."""
    before: Holding
    first: Holding
    """What was held at the end of the first period with the attack."""
    during: Holding
    """The most that was held in a period with the attack."""
    after: Holding
    tracebacks: int

    @property
    def median_ratio(self) -> float:
        return self.attacked.median / self.quiet.median if self.quiet.median else float("inf")

    @property
    def high_ratio(self) -> float:
        """The 99th percentile with the attack, by the higher one of those without it and elsewhere."""
        unaffected = max(self.quiet.high, self.elsewhere.high)
        return self.attacked.high / unaffected if unaffected else float("inf")

    def violations(self, ratio_limit: float = RATIO_LIMIT) -> list[str]:
        """A sentence for each broken promise."""
        seen, grown = self.attacked, self.after.memory - self.before.memory
        growing = self.after.memory - self.first.memory
        redis_grown = self.after.redis_memory - self.before.redis_memory
        keys_grown = self.after.redis_keys - self.before.redis_keys
        checks = [
            (
                self.high_ratio > ratio_limit,
                f"the 99th percentile of round trips rose to {self.high_ratio:.1f} times",
            ),
            (not seen.pings, "no honest client got a reply"),
            (seen.disconnects, f"{seen.disconnects:.0f} honest clients were disconnected"),
            (seen.lost, f"{seen.lost:.0f} publications were lost, repeated or reordered"),
            (seen.leaves, f"{seen.leaves:.0f} leaves of clients that had not left"),
            (self.during.live_nodes < self.before.live_nodes, "a node was taken for dead"),
            (
                self.after.connections > self.before.connections,
                f"{self.after.connections - self.before.connections} connections of the attacker are left",
            ),
            (grown > MEMORY_LIMIT, f"the node holds {grown / 2**20:.0f} MiB more than before"),
            (growing > GROWTH_LIMIT, f"the node holds {growing / 2**20:.0f} MiB more with each period"),
            (redis_grown > REDIS_LIMIT, f"Redis holds {redis_grown / 2**20:.0f} MiB more than before"),
            (keys_grown > KEYS_LIMIT, f"Redis has {keys_grown} keys more than before"),
            (self.tracebacks, f"the nodes logged {self.tracebacks} tracebacks"),
        ]
        return [sentence for is_broken, sentence in checks if is_broken]


async def run_attacks(environment: Environment, attacks: Sequence[str], size: Size) -> Result:
    """Observe without and with the attacks in turn, then wait until the attacker's connections are gone."""
    tracebacks, before = environment.tracebacks(), await environment.holding()
    quiet, elsewhere, attacked, held = [], [], [], [before]
    for _ in range(size.periods):
        quiet.append(await environment.observe(size.seconds))
        if size.has_periods_elsewhere:
            async with environment.attacked(*attacks, elsewhere=True):
                elsewhere.append(await environment.observe(size.seconds))
        async with environment.attacked(*attacks):
            attacked.append(await environment.observe(size.seconds))
            held.append(await environment.holding())
    after = await environment.settled(
        lambda held: (
            held.connections <= before.connections and held.redis_memory <= before.redis_memory + REDIS_LIMIT
        )
    )
    during = Holding(
        memory=max(each.memory for each in held),
        connections=max(each.connections for each in held),
        redis_memory=max(each.redis_memory for each in held),
        redis_keys=max(each.redis_keys for each in held),
        live_nodes=min(each.live_nodes for each in held),
    )
    return Result(
        quiet=_summary(quiet),
        elsewhere=_summary(elsewhere or quiet),
        attacked=_summary(attacked),
        before=before,
        first=held[1],
        during=during,
        after=after,
        tracebacks=environment.tracebacks() - tracebacks,
    )


def _summary(observations: Sequence[Observation]) -> Observation:
    """The medians of the latencies, and the sums of the counts."""
    columns = list(zip(*observations, strict=True))
    return Observation(
        *(statistics.median(column) for column in columns[:2]), *(sum(column) for column in columns[2:])
    )
