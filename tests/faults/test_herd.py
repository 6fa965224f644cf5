"""Many clients at once, in small numbers. Thousands, and those of a killed node: `make chaos`."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.herd import Fold, fold, restart
from tests.support.timing import TICK

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fold]:
    async with fold(tmp_path_factory.mktemp("herd")) as cluster:
        yield cluster


async def test_a_redis_that_restarts_ends_no_connection(cluster: Fold) -> None:
    """WebSockets and event streams on all nodes hear everything."""
    account = await restart(cluster, 200, seconds=5 * TICK)
    assert not account.complaints, account
