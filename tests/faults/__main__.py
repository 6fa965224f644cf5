"""`make chaos`: every fault several times, a table, and exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.faults.faults import ALL
from tests.faults.stage import FULL, Fault, Outcome, staged

COLUMNS = (
    "fault",
    "times",
    "acknowledged",
    "lost",
    "duplicated",
    "reordered",
    "told",
    "lasted s",
    "healed s",
)


async def wreak(faults: list[Fault], rounds: int) -> bool:
    """Let every fault strike in each round, in a random order; say whether all was as promised."""
    console = Console(width=120)
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        async with staged(Path(directory), FULL) as stage:
            for number in range(rounds):
                for fault in random.sample(faults, len(faults)):
                    outcome = await stage.suffer(fault)
                    outcomes[fault.name].append(outcome)
                    console.print(f"[dim]round {number + 1}: {fault.name}: {', '.join(row([outcome])[2:])}")
                    for remark in outcome.remarks:
                        console.print(f"  [red]{remark}")
    table = Table(
        *COLUMNS, title=f"{FULL.subscribers} subscribers, up to {FULL.rate:.0f} publications a second"
    )
    for fault in faults:
        is_right = all(outcome.is_as_promised for outcome in outcomes[fault.name])
        table.add_row(*row(outcomes[fault.name]), style="" if is_right else "red")
    console.print(table)
    return all(outcome.is_as_promised for each in outcomes.values() for outcome in each)


def row(outcomes: list[Outcome]) -> list[str]:
    """The sums of one fault's outcomes, and the longest times."""
    tallies = [outcome.tally for outcome in outcomes]
    names = ("acknowledged", "lost", "duplicated", "reordered", "told")
    counts = [f"{sum(getattr(tally, name) for tally in tallies):,}" for name in names]
    untold = sum(outcome.untold for outcome in outcomes if outcome.fault.log_dies)
    counts[-1] += f" ({untold} not)" if untold else ""
    lasted = max(outcome.lasted_seconds for outcome in outcomes)
    healed = max(outcome.healed_seconds for outcome in outcomes)
    return [outcomes[0].fault.name, str(len(outcomes)), *counts, f"{lasted:.1f}", f"{healed:.1f}"]


def main() -> None:
    """Run, print, exit."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault strikes")
    parser.add_argument("--only", default="", help="only faults with this in their names")
    options = parser.parse_args()
    faults = [fault for fault in ALL if options.only in fault.name]
    sys.exit(not uvloop.run(wreak(faults, options.rounds)))


if __name__ == "__main__":
    main()
