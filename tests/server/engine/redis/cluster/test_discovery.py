"""Starting on a cluster: by any of its servers, or with a sentence that says why not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.engine.redis.certificates import write_certificate
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.server.engine.redis.test_engine import failed_start, works
from tests.support.redis_cluster import LINES, RedisCluster, until
from tocsin_server.engine.redis.cluster.slots import (
    NO_HOST,
    SLOTS,
    Host,
    hash_tag_within,
    parse_topology,
    slot_of,
)
from tocsin_server.engine.redis.connections.connector import OLDEST_CLUSTER_VERSION, check_version
from tocsin_server.errors import EngineError


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[RedisServer]:
    """A cluster of one server, which serves all slots."""
    with redis_running(tmp_path, *LINES) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
        yield server


async def test_one_server_that_answers_is_enough(running: Running, redis_cluster: RedisCluster) -> None:
    """It knows the others; those of the address that are gone are passed over, and a replica will do."""
    (nowhere,) = free_ports(1)
    replica = redis_cluster.replica_of("news")
    async with running(f"redis+cluster://127.0.0.1:{nowhere},127.0.0.1:{replica.port}") as node:
        await works(node)


async def test_where_no_cluster_is_nothing_starts() -> None:
    """The error says where."""
    one, other = free_ports(2)
    said = await failed_start(f"redis+cluster://127.0.0.1:{one},127.0.0.1:{other}")
    assert said.startswith(f"Redis Cluster at 127.0.0.1:{one},127.0.0.1:{other} cannot be used: ")


async def test_a_single_redis_is_not_a_cluster(redis_server: RedisServer) -> None:
    """The error says what the address should be."""
    said = await failed_start(f"redis+cluster://127.0.0.1:{redis_server.port}")
    assert said.endswith("is not a cluster: engine.url must begin with redis:// or rediss://")


async def test_a_cluster_is_not_a_single_redis(redis_cluster: RedisCluster) -> None:
    """The other way about."""
    said = await failed_start(redis_cluster.servers[0].url)
    assert said.endswith(
        "is part of a cluster: engine.url must begin with redis+cluster:// or rediss+cluster://"
    )


async def test_a_cluster_with_holes_is_refused(lonely: RedisServer) -> None:
    """Part of all channels would have no home."""
    lonely.command("CLUSTER", "DELSLOTS", 5, 7)
    said = await failed_start(f"redis+cluster://127.0.0.1:{lonely.port}")
    assert said.endswith(f"cannot be used: only {SLOTS - 2} of {SLOTS} slots are served")


def test_an_old_redis_is_refused() -> None:
    """With what it is, what it should be, and why."""
    check_version({"redis_version": "7.0.0"}, "h:1", OLDEST_CLUSTER_VERSION)
    with pytest.raises(EngineError, match=r"^Redis at h:1 is 6\.2\.14, but must be at least 7\.0, for it$"):
        check_version({"redis_version": "6.2.14"}, "h:1", OLDEST_CLUSTER_VERSION, ", for it")


async def test_a_password_is_for_every_server(running: Running, lonely: RedisServer) -> None:
    """And never said."""
    lonely.command("CONFIG", "SET", "requirepass", "right")
    async with running(f"redis+cluster://:right@127.0.0.1:{lonely.port}") as node:
        await works(node)
    said = await failed_start(f"redis+cluster://:wrong-one@127.0.0.1:{lonely.port}")
    assert "wrong-one" not in said
    assert "cannot be used" in said


async def test_tls(running: Running, tmp_path: Path) -> None:
    """For whichever server is found."""
    certificate, key = write_certificate(tmp_path)
    (tls_port,) = free_ports(1)
    lines = [
        *(*LINES, "tls-cluster yes", f"tls-port {tls_port}", "tls-auth-clients no"),
        *(f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {certificate}"),
    ]
    with redis_running(tmp_path, *lines) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
        async with running(f"rediss+cluster://127.0.0.1:{tls_port}?ssl_ca_certs={certificate}") as node:
            await works(node)
        assert "cannot be used" in await failed_start(f"rediss+cluster://127.0.0.1:{tls_port}")


def test_a_topology_has_an_owner_for_every_slot() -> None:
    """Those that nobody serves too; and a server that does not know its address is where it was asked."""
    answer = [[0, 99, [b"a", 1, b"id", []], [b"b", 2, b"id", []]], [200, SLOTS - 1, [None, 3, b"id", []]]]
    topology = parse_topology(answer, Host("asked", 9))
    assert [topology.owners[slot] for slot in (0, 99, 100, 200)] == [
        Host("a", 1),
        Host("a", 1),
        NO_HOST,
        Host("asked", 3),
    ]
    assert topology.masters == {Host("a", 1), Host("asked", 3)}
    assert topology.unserved_slots == 100
    assert topology.hosts == {Host("a", 1), Host("b", 2), Host("asked", 3), Host("asked", 9)}


@pytest.mark.parametrize("slots", [{0}, {5, 16383}, set(range(8000))])
def test_a_tag_can_be_found_for_any_slots(slots: set[int]) -> None:
    """However few a master serves, its canary has a name."""
    assert slot_of(f"t:node:n1:canary:{{{hash_tag_within(slots)}}}") in slots
