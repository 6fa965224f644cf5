"""An attacker, in a process of its own: `python -m tests.hostile.attacker PORT REDIS_PORT ATTACK…`.

It attacks until its input ends, and at most for `LONGEST_SECONDS`. It has the lowest priority, so that on a
machine with few cores it takes no time from the node, from Redis and from the honest clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import uvloop

from tests.hostile.attacks import callers, commands, frames, readers, requests
from tests.hostile.attacks.attacker import Attack, Target
from tests.support.worker import requests as read_input
from tocsin_load.limits import raise_file_limit

LONGEST_SECONDS = 120.0
LOWEST_PRIORITY = 19


def _attacks_of(module: ModuleType) -> dict[str, Attack]:
    """The public functions of a module that attack a target, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if asyncio.iscoroutinefunction(value)
        and value.__module__ == module.__name__
        and "target" in inspect.signature(value).parameters
        and name[0] != "_"
    }


GROUPS = {
    module.__name__.rpartition(".")[2]: _attacks_of(module)
    for module in (frames, requests, commands, readers, callers)
}
"""All attacks by name, by the module that defines them."""

ATTACKS = {name: attack for group in GROUPS.values() for name, attack in group.items()}


async def main(target: Target, names: Sequence[str]) -> None:
    """Run the attacks together."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_SECONDS):
            attacking = [asyncio.create_task(ATTACKS[name](target)) for name in names]
            async for _ in read_input():
                pass
            for task in attacking:
                task.cancel()
            for result in await asyncio.gather(*attacking, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result


if __name__ == "__main__":
    os.nice(LOWEST_PRIORITY)
    raise_file_limit()
    uvloop.run(main(Target(int(sys.argv[1]), int(sys.argv[2])), sys.argv[3:]))
