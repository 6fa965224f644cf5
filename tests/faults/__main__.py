"""`make chaos`: every fault several times, many clients at once, and exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.faults.breaking import ON_ONE_REDIS
from tests.faults.clocks import WITH_CLOCKS
from tests.faults.fault_environment import FULL, Fault, Outcome, Setting, Size, Stage, staged
from tests.faults.mass_reconnect import fold, restart, stampede
from tests.faults.sentinels import BEHIND_SENTINELS
from tests.faults.slots import ON_SLOTS

SETTINGS: list[Setting[Any]] = [ON_ONE_REDIS, BEHIND_SENTINELS, ON_SLOTS, WITH_CLOCKS]

HERD = 5000
RESTARTED = 2000
"""How many clients a killed node has, and how many are there when Redis restarts."""

COLUMNS = (
    "fault",
    "times",
    "acknowledged",
    "lost",
    "duplicated",
    "reordered",
    "told",
    "detected s",
    "lasted s",
    "healed s",
)

console = Console(width=140)


@dataclass
class Strikes:
    """What became of one fault: an outcome of each strike, but not of those that raised or had no stage."""

    outcomes: list[Outcome] = field(default_factory=list)
    failed: int = 0

    @property
    def are_as_promised(self) -> bool:
        """All of them."""
        return not self.failed and all(outcome.is_as_promised for outcome in self.outcomes)


Results = dict[str, Strikes]
"""The strikes of each fault, by its name."""

Staged = Callable[[Setting[Any], Path, Size], AbstractAsyncContextManager[Stage[Any]]]


async def wreak(
    settings: Sequence[Setting[Any]], only: str, rounds: int, staged: Staged = staged
) -> tuple[Results, bool]:
    """Let every fault strike in each round, in a random order; say whether all was as promised."""
    results: Results = {}
    is_right = True
    for setting in settings:
        faults = [fault for fault in setting.faults if only in fault.name]
        results |= {fault.name: Strikes() for fault in faults}
        is_right &= await _wreak_in(setting, faults, rounds, results, staged)
    return results, is_right and all(strikes.are_as_promised for strikes in results.values())


async def _wreak_in(
    setting: Setting[Any], faults: list[Fault[Any]], rounds: int, results: Results, staged: Staged
) -> bool:
    """Say whether every stage was set and cleared well.

    After a strike that raised a new one is set: nobody has mended what it broke on the old one.
    """
    waiting = deque(
        (number, fault) for number in range(rounds) for fault in random.sample(faults, len(faults))
    )
    is_right = True
    while waiting:
        left = len(waiting)
        try:
            with tempfile.TemporaryDirectory() as directory:
                async with staged(setting, Path(directory), FULL) as stage:
                    while waiting:
                        await _strike(stage, *waiting.popleft(), results)
        except Exception as error:  # noqa: BLE001 - the other faults are worth a look too
            _lament(error)
            is_right = False
            if len(waiting) == left:  # it could not be set, and would not be the next time
                for _, fault in waiting:
                    results[fault.name].failed += 1
                break
    return is_right


async def _strike(stage: Stage[Any], number: int, fault: Fault[Any], results: Results) -> None:
    try:
        outcome = await stage.suffer(fault)
    except BaseException:  # cancelled too: then what runs on the stage has failed
        results[fault.name].failed += 1
        console.print(f"[red]round {number + 1}: {fault.name} failed")
        raise
    results[fault.name].outcomes.append(outcome)
    _show(number, outcome)


def _lament(error: BaseException) -> None:
    """Print where each of what went wrong together did."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            _lament(one)
    else:
        console.print("".join(traceback.format_exception(error)), style="red", markup=False, soft_wrap=True)


def _show(number: int, outcome: Outcome) -> None:
    console.print(f"[dim]round {number + 1}: {outcome.name}: {', '.join(_figures([outcome]))}")
    for remark in outcome.remarks:
        console.print(f"  [red]{remark}")


def row(name: str, strikes: Strikes) -> list[str]:
    """How often a fault struck, and what that came to."""
    times = f"{len(strikes.outcomes)}" + (f", {strikes.failed} failed" if strikes.failed else "")
    return [name, times, *(_figures(strikes.outcomes) if strikes.outcomes else ())]


def _figures(outcomes: list[Outcome]) -> list[str]:
    """The sums of one fault's outcomes, and the longest times."""
    tallies = [outcome.tally for outcome in outcomes]
    names = ("acknowledged", "lost", "duplicated", "reordered", "told")
    counts = [f"{sum(getattr(tally, name) for tally in tallies):,}" for name in names]
    owed = sum(outcome.owed_told for outcome in outcomes)
    counts[-1] += f" of {owed:,}" if owed else ""
    detected = [outcome.detected_seconds for outcome in outcomes if outcome.detected_seconds is not None]
    times = [
        f"{max(detected):.1f}" if detected else "-",
        f"{max(outcome.lasted_seconds for outcome in outcomes):.1f}",
        f"{max(outcome.healed_seconds for outcome in outcomes):.1f}",
    ]
    return [*counts, *times]


def tabulate(results: Results) -> None:
    """Print a row for each fault that struck."""
    table = Table(
        *COLUMNS, title=f"{FULL.subscribers} subscribers, up to {FULL.rate:.0f} publications a second"
    )
    for name, strikes in results.items():
        if strikes.outcomes or strikes.failed:
            table.add_row(*row(name, strikes), style="" if strikes.are_as_promised else "red")
    console.print(table)


async def gather() -> bool:
    """Many at once; say whether all was as promised."""
    is_right = True
    with tempfile.TemporaryDirectory() as directory:
        async with fold(Path(directory)) as cluster:
            for account in (await stampede(cluster, HERD), await restart(cluster, RESTARTED)):
                console.print(f"[bold]{account.name}")
                for line in (*account.facts, *(f"[red]{complaint}" for complaint in account.complaints)):
                    console.print(f"  {line}")
                is_right &= not account.complaints
    return is_right


async def run(only: str, rounds: int) -> bool:
    """Everything, or what has `only` in its name."""
    results, is_right = await wreak(SETTINGS, only, rounds)
    tabulate(results)
    return (only not in "herd" or await gather()) and is_right


def main() -> None:
    """Run, print, exit."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault strikes")
    parser.add_argument("--only", default="", help="only faults with this in their names, or herd")
    options = parser.parse_args()
    sys.exit(not uvloop.run(run(options.only, options.rounds)))


if __name__ == "__main__":
    main()
