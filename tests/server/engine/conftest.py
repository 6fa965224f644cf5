"""Fixtures for every engine's tests."""

from collections.abc import Iterator

import pytest

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.redis_cluster import RedisCluster, run_redis_cluster


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis that most tests share, each with a prefix of its own."""
    with redis_running(tmp_path_factory.mktemp("redis"), "appendonly no") as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The Redis Cluster that tests share, each with a prefix of its own. Whoever harms it heals it again."""
    with run_redis_cluster(tmp_path_factory.mktemp("cluster"), "appendonly no") as cluster:
        yield cluster
