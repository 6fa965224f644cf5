"""`make hostile`: every attack beside 200 honest clients. The exit code is 1 if a promise is broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.hostile.attack_run import Result, Size, run_attacks
from tests.hostile.attacker import ATTACKS
from tests.hostile.environment import open_environment

HONEST_CLIENTS = 200
FULL = Size(periods=3, seconds=5)

console = Console(width=150)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f}"


def row(name: str, result: Result) -> list[str]:
    """The table row of one attack."""
    quiet, attacked = result.quiet, result.attacked
    return [
        name,
        f"{quiet.median:.1f} / {quiet.high:.1f}",
        f"{result.elsewhere.median:.1f} / {result.elsewhere.high:.1f}",
        f"{attacked.median:.1f} / {attacked.high:.1f}",
        f"{result.high_ratio:.1f}",
        " / ".join(_mebibytes(held.memory) for held in (result.before, result.during, result.after)),
        " / ".join(_mebibytes(held.redis_memory) for held in (result.before, result.during, result.after)),
        f"{result.after.redis_keys - result.before.redis_keys:+}",
    ]


async def run_all(only: str, size: Size, *, uses_nginx: bool) -> bool:
    """Run every attack that has `only` in its name. True if no promise was broken."""
    table = Table(
        "attack",
        "ms without it, median / p99",
        "ms with it elsewhere",
        "ms with it",
        "p99 ratio",
        "MiB of the node, before / during / after",
        "MiB of Redis",
        "keys in Redis",
        title=f"{HONEST_CLIENTS} honest clients",
    )
    is_right = True
    for name in (name for name in ATTACKS if only in name):
        with tempfile.TemporaryDirectory() as directory:
            async with open_environment(
                Path(directory), HONEST_CLIENTS, uses_nginx=uses_nginx
            ) as environment:
                result = await run_attacks(environment, [name], size)
        violations = result.violations()
        console.print(f"[dim]{' | '.join(row(name, result))}")
        for violation in violations:
            console.print(f"  [red]{violation}")
        table.add_row(*row(name, result), style="red" if violations else "")
        is_right &= not violations
    console.print(table)
    return is_right


def main() -> None:
    """Run, print, and exit."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--only", default="", help="only attacks with this in their name")
    parser.add_argument("--seconds", type=float, default=FULL.seconds, help="the length of each period")
    parser.add_argument("--nginx", action="store_true", help="attack through the nginx of deploy/")
    options = parser.parse_args()
    size = Size(FULL.periods, options.seconds)
    sys.exit(not uvloop.run(run_all(options.only, size, uses_nginx=options.nginx)))


if __name__ == "__main__":
    main()
