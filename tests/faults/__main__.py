"""`make chaos`: every fault several times under load. The exit code is 1 if a promise is broken."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.faults import lifecycle_faults, lifecycle_run
from tests.faults.clock_faults import CLOCK_FAULTS
from tests.faults.fault_environment import (
    FULL,
    Fault,
    FaultEnvironment,
    FaultGroup,
    Outcome,
    Size,
    open_environment,
)
from tests.faults.mass_reconnect import Result, fixed_port_cluster, kill_node, restart_redis
from tests.faults.redis_cluster_faults import REDIS_CLUSTER_FAULTS
from tests.faults.sentinel_faults import SENTINEL_FAULTS
from tests.faults.standalone_faults import STANDALONE_FAULTS

GROUPS: list[FaultGroup[Any]] = [STANDALONE_FAULTS, SENTINEL_FAULTS, REDIS_CLUSTER_FAULTS, CLOCK_FAULTS]

MASS_RECONNECT = "mass-reconnect"
"""The name by which `--only` selects the runs with thousands of clients."""
LIFECYCLE = "lifecycle"
"""The name by which `--only` selects the run with thousands of sessions whose events are read."""
RECONNECTING_CLIENTS = 5000
"""Clients of the node that is killed."""
REDIS_RESTART_CLIENTS = 2000
"""Clients that are connected when Redis restarts."""

COLUMNS = (
    "fault",
    "times",
    "acknowledged",
    "lost",
    "duplicated",
    "reordered",
    "gaps",
    "detected s",
    "lasted s",
    "recovered s",
)

console = Console(width=140)


@dataclass
class FaultResults:
    """The outcomes of one fault, and how often it failed: it raised, or there was no environment."""

    outcomes: list[Outcome] = field(default_factory=list)
    failed: int = 0

    @property
    def is_as_promised(self) -> bool:
        """Whether no injection failed or broke a promise."""
        return not self.failed and all(outcome.is_as_promised for outcome in self.outcomes)


Results = dict[str, FaultResults]
"""The results of each fault, by its name."""

OpenEnvironment = Callable[[FaultGroup[Any], Path, Size], AbstractAsyncContextManager[FaultEnvironment[Any]]]


async def run_groups(
    groups: Sequence[FaultGroup[Any]],
    only: str,
    rounds: int,
    open_environment: OpenEnvironment = open_environment,
) -> tuple[Results, bool]:
    """Inject every fault once a round, in random order. The second value is True if no promise was broken."""
    results: Results = {}
    is_right = True
    for group in groups:
        faults = [fault for fault in group.faults if only in fault.name]
        results |= {fault.name: FaultResults() for fault in faults}
        is_right &= await _run_group(group, faults, rounds, results, open_environment)
    return results, is_right and all(each.is_as_promised for each in results.values())


async def _run_group(
    group: FaultGroup[Any],
    faults: list[Fault[Any]],
    rounds: int,
    results: Results,
    open_environment: OpenEnvironment,
) -> bool:
    """False if an environment did not start or did not end well.

    After an injection that raised, the next fault gets a new environment: the old one may still be broken.
    """
    waiting = deque(
        (number, fault) for number in range(rounds) for fault in random.sample(faults, len(faults))
    )
    is_right = True
    while waiting:
        left = len(waiting)
        try:
            with tempfile.TemporaryDirectory() as directory:
                async with open_environment(group, Path(directory), FULL) as environment:
                    while waiting:
                        await _run_fault(environment, *waiting.popleft(), results)
        except Exception as error:  # noqa: BLE001 - the remaining faults are still injected
            _print_errors(error)
            is_right = False
            if len(waiting) == left:  # the environment did not start, and would not start the next time
                for _, fault in waiting:
                    results[fault.name].failed += 1
                break
    return is_right


async def _run_fault(
    environment: FaultEnvironment[Any], number: int, fault: Fault[Any], results: Results
) -> None:
    try:
        outcome = await environment.run_fault(fault)
    except BaseException:  # also CancelledError: then a task of the environment has failed
        results[fault.name].failed += 1
        console.print(f"[red]round {number + 1}: {fault.name} failed")
        raise
    results[fault.name].outcomes.append(outcome)
    _print_outcome(number, outcome)


def _print_errors(error: BaseException) -> None:
    """Print the traceback of an error, or of each error in a group."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            _print_errors(one)
    else:
        console.print("".join(traceback.format_exception(error)), style="red", markup=False, soft_wrap=True)


def _print_outcome(number: int, outcome: Outcome) -> None:
    console.print(f"[dim]round {number + 1}: {outcome.name}: {', '.join(_figures([outcome]))}")
    for remark in outcome.remarks:
        console.print(f"  [red]{remark}")


def row(name: str, results: FaultResults) -> list[str]:
    """The table row of one fault."""
    times = f"{len(results.outcomes)}" + (f", {results.failed} failed" if results.failed else "")
    return [name, times, *(_figures(results.outcomes) if results.outcomes else ())]


def _figures(outcomes: list[Outcome]) -> list[str]:
    """The sums of one fault's counts, and its longest times."""
    tallies = [outcome.tally for outcome in outcomes]
    names = ("acknowledged", "lost", "duplicated", "reordered", "gaps")
    counts = [f"{sum(getattr(tally, name) for tally in tallies):,}" for name in names]
    expected = sum(outcome.gaps_expected for outcome in outcomes)
    counts[-1] += f" of {expected:,}" if expected else ""
    detected = [outcome.detected_seconds for outcome in outcomes if outcome.detected_seconds is not None]
    times = [
        f"{max(detected):.1f}" if detected else "-",
        f"{max(outcome.lasted_seconds for outcome in outcomes):.1f}",
        f"{max(outcome.recovered_seconds for outcome in outcomes):.1f}",
    ]
    return [*counts, *times]


def print_table(results: Results) -> None:
    """Print a row for each fault that was injected."""
    table = Table(
        *COLUMNS, title=f"{FULL.subscribers} subscribers, up to {FULL.rate:.0f} publications a second"
    )
    for name, each in results.items():
        if each.outcomes or each.failed:
            table.add_row(*row(name, each), style="" if each.is_as_promised else "red")
    console.print(table)


async def mass_reconnects() -> bool:
    """Run the scenarios with thousands of clients. True if no promise was broken."""
    is_right = True
    with tempfile.TemporaryDirectory() as directory:
        async with fixed_port_cluster(Path(directory)) as cluster:
            for result in (
                await kill_node(cluster, RECONNECTING_CLIENTS),
                await restart_redis(cluster, REDIS_RESTART_CLIENTS),
            ):
                is_right &= _print_result(result)
    return is_right


async def lifecycle_events(rounds: int) -> bool:
    """Run the sessions whose lifecycle events are read. True if no promise was broken."""
    plan = replace(lifecycle_run.FULL, rounds=rounds)
    with tempfile.TemporaryDirectory() as directory:
        async with lifecycle_run.lifecycle_cluster(Path(directory)) as cluster:
            run = lifecycle_run.LifecycleRun(cluster, plan)
            return _print_result(await run.execute(lifecycle_faults.FAULTS))


def _print_result(result: Result) -> bool:
    """Print a result. True if no promise was broken."""
    console.print(f"[bold]{result.name}")
    for line in (*result.facts, *(f"[red]{violation}" for violation in result.violations)):
        console.print(f"  {line}")
    return not result.violations


async def run_all(only: str, rounds: int) -> bool:
    """Run everything that has `only` in its name. True if no promise was broken."""
    results, is_right = await run_groups(GROUPS, only, rounds)
    print_table(results)
    if only in MASS_RECONNECT:
        is_right &= await mass_reconnects()
    if only in LIFECYCLE:
        is_right &= await lifecycle_events(rounds)
    return is_right


def main() -> None:
    """Run, print, and exit."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault is injected")
    parser.add_argument(
        "--only", default="", help=f"only faults with this in their name, {MASS_RECONNECT}, or {LIFECYCLE}"
    )
    options = parser.parse_args()
    sys.exit(not uvloop.run(run_all(options.only, options.rounds)))


if __name__ == "__main__":
    main()
