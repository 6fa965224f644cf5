"""`make chaos`: every fault several times, a table, and exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.faults.breaking import ON_ONE_REDIS
from tests.faults.clocks import WITH_CLOCKS
from tests.faults.sentinels import BEHIND_SENTINELS
from tests.faults.stage import FULL, Fault, Outcome, Setting, staged

SETTINGS: list[Setting[Any]] = [ON_ONE_REDIS, BEHIND_SENTINELS, WITH_CLOCKS]

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
    for setting in settings:
        faults = [fault for fault in setting.faults if only in fault.name]
        outcomes |= {fault.name: [] for fault in faults}
        if faults:
            await _wreak_in(setting, faults, rounds, outcomes)
    table = Table(
        *COLUMNS, title=f"{FULL.subscribers} subscribers, up to {FULL.rate:.0f} publications a second"
    )
    for each in outcomes.values():
        table.add_row(*row(each), style="" if all(one.is_as_promised for one in each) else "red")
    console.print(table)
    return all(one.is_as_promised for each in outcomes.values() for one in each)


async def _wreak_in(
    setting: Setting[Any], faults: list[Fault[Any]], rounds: int, outcomes: dict[str, list[Outcome]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with staged(setting, Path(directory), FULL) as stage:
            for number in range(rounds):
                for fault in random.sample(faults, len(faults)):
                    outcome = await stage.suffer(fault)
                    outcomes[fault.name].append(outcome)
                    console.print(f"[dim]round {number + 1}: {fault.name}: {', '.join(row([outcome])[2:])}")
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


def main() -> None:
    """Run, print, exit."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault strikes")
    parser.add_argument("--only", default="", help="only faults with this in their names")
    options = parser.parse_args()
    sys.exit(not uvloop.run(wreak(SETTINGS, options.only, options.rounds)))


if __name__ == "__main__":
    main()
