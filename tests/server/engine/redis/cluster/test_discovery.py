"""Discovery: starting on a cluster by any of its servers, and the errors when that fails."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.exceptions import ResponseError

from tests.server.engine.redis.certificates import write_certificate
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.server.engine.redis.test_engine import assert_works, failed_start
from tests.support.redis_cluster import CONFIG_LINES, RedisCluster, until
from tocsin_server.engine.redis.cluster.slots import (
    SLOTS,
)


class SingleServer(NamedTuple):
    """A cluster of one server, which serves all slots, with and without TLS."""

    redis: RedisServer
    tls_port: int
    certificate: Path


@pytest.fixture(scope="module")
def started_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleServer]:
    """One for all tests: a server of a cluster serves its slots only two seconds after its start."""
    folder = tmp_path_factory.mktemp("single-server")
    certificate, key = write_certificate(folder)
    (tls_port,) = free_ports(1)
    lines = [
        *(*CONFIG_LINES, "tls-cluster yes", f"tls-port {tls_port}", "tls-auth-clients no"),
        *(f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {certificate}"),
    ]
    with redis_running(folder, *lines) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        yield SingleServer(server, tls_port, certificate)


@pytest.fixture
def single_server(started_server: SingleServer) -> Iterator[SingleServer]:
    """The server, without password and with all slots before and after the test."""
    server = started_server.redis
    until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
    yield started_server
    server.command("CONFIG", "SET", "requirepass", "")
    for slot in MISSING_SLOTS:
        with contextlib.suppress(ResponseError):  # it is served
            server.command("CLUSTER", "ADDSLOTS", slot)


MISSING_SLOTS = (5, 7)
"""The slots that a test removes."""


async def test_one_reachable_server_is_enough(running: Running, redis_cluster: RedisCluster) -> None:
    """It knows the others, and may be a replica."""
    (nowhere,) = free_ports(1)
    replica = redis_cluster.replica_of("news")
    async with running(f"redis+cluster://127.0.0.1:{nowhere},127.0.0.1:{replica.port}") as node:
        await assert_works(node)


async def test_an_engine_without_a_cluster_does_not_start() -> None:
    """The error names the address."""
    one, other = free_ports(2)
    said = await failed_start(f"redis+cluster://127.0.0.1:{one},127.0.0.1:{other}")
    assert said.startswith(f"Redis Cluster at 127.0.0.1:{one},127.0.0.1:{other} cannot be used: ")


async def test_a_standalone_redis_is_not_a_cluster(redis_server: RedisServer) -> None:
    """The error names the schemes of a standalone Redis."""
    said = await failed_start(f"redis+cluster://127.0.0.1:{redis_server.port}")
    assert said.endswith("is not a cluster: engine.url must begin with redis:// or rediss://")


async def test_a_cluster_is_not_a_standalone_redis(redis_cluster: RedisCluster) -> None:
    """The error names the schemes of a cluster."""
    said = await failed_start(redis_cluster.servers[0].url)
    assert said.endswith(
        "is part of a cluster: engine.url must begin with redis+cluster:// or rediss+cluster://"
    )


async def test_a_cluster_with_unserved_slots_is_rejected(single_server: SingleServer) -> None:
    """Some channels would have no server."""
    server = single_server.redis
    server.command("CLUSTER", "DELSLOTS", *MISSING_SLOTS)
    said = await failed_start(f"redis+cluster://127.0.0.1:{server.port}")
    assert said.endswith(f"cannot be used: only {SLOTS - 2} of {SLOTS} slots are served")


async def test_the_password_applies_to_every_server(running: Running, single_server: SingleServer) -> None:
    """No error shows it."""
    server = single_server.redis
    server.command("CONFIG", "SET", "requirepass", "right")
    async with running(f"redis+cluster://:right@127.0.0.1:{server.port}") as node:
        await assert_works(node)
    said = await failed_start(f"redis+cluster://:wrong-one@127.0.0.1:{server.port}")
    assert "wrong-one" not in said
    assert "cannot be used" in said


async def test_tls_applies_to_every_server(running: Running, single_server: SingleServer) -> None:
    """The certificate is checked against the authority that the address names."""
    url = f"rediss+cluster://127.0.0.1:{single_server.tls_port}"
    async with running(f"{url}?ssl_ca_certs={single_server.certificate}") as node:
        await assert_works(node)
    assert "cannot be used" in await failed_start(url)
