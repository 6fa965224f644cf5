"""Fixtures for the tests of every engine."""

from collections.abc import Iterator

import pytest

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.redis_cluster import RedisCluster, cluster_running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis that most tests share. Each test has its own prefix."""
    with redis_running(tmp_path_factory.mktemp("redis"), "appendonly no") as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The Redis Cluster that tests share. Each test has its own prefix, and repairs what it breaks."""
    with cluster_running(tmp_path_factory.mktemp("cluster"), "appendonly no") as cluster:
        yield cluster
