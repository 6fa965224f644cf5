"""The short version of `make hostile`: the attacks of each kind together, beside fewer honest clients."""

import math
from pathlib import Path

from tests.hostile.attack_run import Size, run_attacks
from tests.hostile.attacker import GROUPS
from tests.hostile.environment import open_environment

SHORT = Size(periods=1, seconds=2, has_periods_elsewhere=False)
HONEST_CLIENTS = 50

MEDIAN_RATIO_LIMIT = 60.0
"""How much higher the median of round trips may be. Without bounds it is a thousand times higher.

The attacks of a kind run together, on a machine that runs other tests too, so that percentiles say nothing.
"""


async def test_honest_clients_notice_no_attack_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    """No honest client is disconnected or misses anything, no node is taken for dead, and memory returns."""
    violations = {}
    async with open_environment(tmp_path, HONEST_CLIENTS) as environment:
        for name, attacks in GROUPS.items():
            result = await run_attacks(environment, list(attacks), SHORT)
            violations[name] = result.violations(ratio_limit=math.inf)
            if result.median_ratio > MEDIAN_RATIO_LIMIT:
                violations[name].append(f"the median of round trips rose to {result.median_ratio:.0f} times")
    assert not any(violations.values()), violations
