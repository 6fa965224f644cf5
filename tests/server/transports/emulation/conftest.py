"""A Redis for nodes that share it."""

from collections.abc import Iterator

import pytest

from tests.server.engine.redis.redis_server import RedisServer, redis_running


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Each test has its own prefix."""
    with redis_running(tmp_path_factory.mktemp("redis"), "appendonly no") as server:
        yield server
