"""`make chaos`: every fault several times, many clients at once, and exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.faults.breaking import ON_ONE_REDIS
from tests.faults.clocks import WITH_CLOCKS
from tests.faults.herd import fold, restart, stampede
from tests.faults.sentinels import BEHIND_SENTINELS
from tests.faults.slots import ON_SLOTS
from tests.faults.stage import FULL, Fault, Outcome, Setting, staged

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


async def wreak(settings: Sequence[Setting[Any]], only: str, rounds: int) -> bool:
    """Let every fault strike in each round, in a random order; say whether all was as promised."""
    outcomes: dict[str, list[Outcome]] = {}
    is_right = True
    for setting in settings:
        faults = [fault for fault in setting.faults if only in fault.name]
        outcomes |= {fault.name: [] for fault in faults}
        if faults:
            is_right &= await _wreak_in(setting, faults, rounds, outcomes)
    table = Table(
        *COLUMNS, title=f"{FULL.subscribers} subscribers, up to {FULL.rate:.0f} publications a second"
    )
    for each in filter(None, outcomes.values()):
        table.add_row(*row(each), style="" if all(one.is_as_promised for one in each) else "red")
    console.print(table)
    return is_right and all(one.is_as_promised for each in outcomes.values() for one in each)


async def _wreak_in(
    setting: Setting[Any], faults: list[Fault[Any]], rounds: int, outcomes: dict[str, list[Outcome]]
) -> bool:
    """Say whether everything ran to its end, and ended well."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            async with staged(setting, Path(directory), FULL) as stage:
                for number in range(rounds):
                    for fault in random.sample(faults, len(faults)):
                        outcome = await stage.suffer(fault)
                        outcomes[fault.name].append(outcome)
                        _show(number, outcome)
    except Exception as error:  # noqa: BLE001 - the other settings are worth a look too
        _lament(error)
        return False
    return True


def _lament(error: BaseException) -> None:
    """Print where each of what went wrong together did."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            _lament(one)
    else:
        console.print("".join(traceback.format_exception(error)), style="red", markup=False, soft_wrap=True)


def _show(number: int, outcome: Outcome) -> None:
    console.print(f"[dim]round {number + 1}: {outcome.name}: {', '.join(row([outcome])[2:])}")
    for remark in outcome.remarks:
        console.print(f"  [red]{remark}")


def row(outcomes: list[Outcome]) -> list[str]:
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
    return [outcomes[0].name, str(len(outcomes)), *counts, *times]


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
    is_right = await wreak(SETTINGS, only, rounds)
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
