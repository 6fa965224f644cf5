"""The faults that heal within seconds, with a smaller crowd. All of them: `make chaos`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.breaking import ON_ONE_REDIS
from tests.faults.clocks import WITH_CLOCKS
from tests.faults.fault_environment import SHORT, Fault, Setting, Stage, staged
from tests.faults.sentinels import BEHIND_SENTINELS
from tests.faults.slots import ON_SLOTS
from tests.faults.standalone import Alone

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage[Alone]]:
    async with staged(ON_ONE_REDIS, tmp_path_factory.mktemp("faults"), SHORT) as stage:
        yield stage


@pytest.mark.parametrize("fault", ON_ONE_REDIS.brief, ids=lambda fault: fault.name)
async def test_everybody_hears_everything_once_and_in_order_whatever_breaks(
    stage: Stage[Alone], fault: Fault[Alone]
) -> None:
    """Every publication that was acknowledged, and nobody is told of a loss, since there is none."""
    outcome = await stage.suffer(fault)
    assert outcome.tally.acknowledged > 0
    assert outcome.is_as_promised, outcome


@pytest.mark.parametrize("setting", [BEHIND_SENTINELS, ON_SLOTS], ids=["Sentinel", "Redis Cluster"])
@pytest.mark.asyncio(loop_scope="function")
async def test_a_failover_that_was_planned_loses_nothing(setting: Setting[Any], tmp_path: Path) -> None:
    """Nor is anybody told of a loss, or sent away."""
    async with staged(setting, tmp_path, SHORT) as stage:
        outcomes = [await stage.suffer(fault) for fault in setting.brief]
    assert outcomes
    assert all(outcome.is_as_promised for outcome in outcomes), outcomes


@pytest.mark.asyncio(loop_scope="function")
async def test_nobody_notices_clocks_that_jump(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is lost, nobody is sent away, and all who are present stay so."""
    async with staged(WITH_CLOCKS, tmp_path_factory.mktemp("clocks"), SHORT) as stage:
        (fault,) = WITH_CLOCKS.faults
        outcome = await stage.suffer(fault)
    assert outcome.is_as_promised, outcome
