"""The supervisor: a component that raises is reported and restarted."""

import pytest

from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.readiness import until_ready, until_unready_reason
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.redis.test_engine import assert_works
from tests.support.timing import TICK
from tocsin_server.engine.redis import supervisor
from tocsin_server.engine.redis.membership.lease import Lease
from tocsin_server.engine.redis.pipeline import Pipeline


@pytest.mark.usefixtures("short_leases")
@pytest.mark.parametrize(
    ("component", "kind", "step"), [("lease", Lease, "_renew"), ("pipeline", Pipeline, "_on_batch_done")]
)
async def test_a_component_that_fails_is_reported_and_restarted(
    running: Running,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
    kind: type,
    step: str,
) -> None:
    """The node is not ready, gives the reason, and becomes ready again."""
    monkeypatch.setattr(supervisor, "RESTART_PAUSE_SECONDS", TICK)
    async with running(redis_server.url) as node:

        def fail(*_: object) -> None:
            raise KeyError(step)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, step, fail)
            await until_unready_reason(node, component)
        await until_ready(node)
        await assert_works(node)
