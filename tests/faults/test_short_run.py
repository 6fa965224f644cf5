"""The quick faults, in a small environment. `make chaos` injects all faults in a large one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.clock_faults import CLOCK_FAULTS
from tests.faults.fault_environment import SHORT, Fault, FaultEnvironment, FaultGroup, open_environment
from tests.faults.redis_cluster_faults import REDIS_CLUSTER_FAULTS
from tests.faults.sentinel_faults import SENTINEL_FAULTS
from tests.faults.standalone import StandaloneCluster
from tests.faults.standalone_faults import STANDALONE_FAULTS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[FaultEnvironment[StandaloneCluster]]:
    async with open_environment(STANDALONE_FAULTS, tmp_path_factory.mktemp("faults"), SHORT) as environment:
        yield environment


@pytest.mark.parametrize("fault", STANDALONE_FAULTS.quick, ids=lambda fault: fault.name)
async def test_every_subscriber_receives_everything_once_and_in_order(
    environment: FaultEnvironment[StandaloneCluster], fault: Fault[StandaloneCluster]
) -> None:
    """This holds for every acknowledged publication. No subscriber is told of a gap, since there is none."""
    outcome = await environment.run_fault(fault)
    assert outcome.tally.acknowledged > 0
    assert outcome.is_as_promised, outcome


@pytest.mark.parametrize("group", [SENTINEL_FAULTS, REDIS_CLUSTER_FAULTS], ids=["Sentinel", "Redis Cluster"])
@pytest.mark.asyncio(loop_scope="function")
async def test_a_planned_failover_loses_nothing(group: FaultGroup[Any], tmp_path: Path) -> None:
    """No subscriber is told of a gap, and no connection ends."""
    async with open_environment(group, tmp_path, SHORT) as environment:
        outcomes = [await environment.run_fault(fault) for fault in group.quick]
    assert outcomes
    assert all(outcome.is_as_promised for outcome in outcomes), outcomes


@pytest.mark.asyncio(loop_scope="function")
async def test_clocks_that_jump_have_no_effect(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is lost, no connection ends, and all present clients stay present."""
    async with open_environment(CLOCK_FAULTS, tmp_path_factory.mktemp("clocks"), SHORT) as environment:
        (fault,) = CLOCK_FAULTS.faults
        outcome = await environment.run_fault(fault)
    assert outcome.is_as_promised, outcome
