"""Starting the engine with each kind of address, and the errors when it cannot start."""

from pathlib import Path

import pytest

from tests.server.engine.contract.harness import HISTORY, Node, publication
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.certificates import write_certificate
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connector import Connector, read_server_info
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.errors import EngineError


async def failed_start(url: str) -> str:
    """Start an engine that must fail. Returns the error's message."""
    engine = RedisEngine(parse_address(url), "test")
    with pytest.raises(EngineError) as caught:
        await engine.start(RecordingHandler())
    await engine.stop()
    return str(caught.value)


async def assert_works(node: Node) -> None:
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), HISTORY)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


async def test_an_engine_without_a_redis_does_not_start() -> None:
    """The error names the address."""
    (port,) = free_ports(1)
    assert f"127.0.0.1:{port}" in await failed_start(f"redis://127.0.0.1:{port}")


@pytest.mark.usefixtures("short_timeouts")
async def test_an_engine_with_a_silent_redis_does_not_start(proxy: BlackholeProxy) -> None:
    """It fails in bounded time."""
    proxy.drop_all()
    assert "cannot be used" in await failed_start(proxy.url)


async def test_a_wrong_password_is_an_error_that_hides_it(volatile_redis: RedisServer) -> None:
    """So is a missing one."""
    volatile_redis.command("CONFIG", "SET", "requirepass", "right")
    for credentials in ("", "user:wrong-one@", ":wrong-one@"):
        said = await failed_start(f"redis://{credentials}127.0.0.1:{volatile_redis.port}")
        assert "wrong-one" not in said
        assert "cannot be used" in said


async def test_the_address_sets_password_and_database(running: Running, volatile_redis: RedisServer) -> None:
    """Percent-encoding is decoded."""
    volatile_redis.command("CONFIG", "SET", "requirepass", "p@ss:/word")
    async with running(f"redis://:p%40ss%3A%2Fword@127.0.0.1:{volatile_redis.port}/3") as node:
        await assert_works(node)
    volatile_redis.command("AUTH", "p@ss:/word")
    info = volatile_redis.client.info("keyspace")
    assert isinstance(info, dict)
    assert list(info) == ["db3"]


async def test_tls_checks_the_certificate(running: Running, tmp_path: Path) -> None:
    """It uses the authority that the address names."""
    certificate, key = write_certificate(tmp_path)
    lines = [
        "tls-port {free_port}",
        f"tls-cert-file {certificate}",
        f"tls-key-file {key}",
        "tls-auth-clients no",
    ]
    with redis_running(tmp_path, *lines) as server:
        async with running(f"rediss://127.0.0.1:{server.second_port}?ssl_ca_certs={certificate}") as node:
            await assert_works(node)
        url = f"rediss://127.0.0.1:{server.second_port}"
        assert "cannot be used" in await failed_start(url)
        async with running(f"{url}?ssl_cert_reqs=none") as node:
            await assert_works(node)


async def test_a_unix_socket_is_an_address(running: Running, tmp_path: Path) -> None:
    """With a user, a password and a database. Errors name the path."""
    path = tmp_path / "redis.sock"
    with redis_running(tmp_path, f"unixsocket {path}") as server:
        server.command("ACL", "SETUSER", "me", "on", ">p#w", "~*", "&*", "+@all")
        async with running(f"unix://me:p%23w@{path}?db=2") as node:
            await assert_works(node)
        assert list(server.client.info("keyspace")) == ["db2"]
        assert str(path) in await failed_start(f"redis+unix://me:wrong@{path}")
    assert str(path) in await failed_start(f"unix://{path}")


async def test_an_old_redis_is_rejected(
    running: Running, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names its version and the oldest version that a standalone Redis may have."""
    said = {"redis_version": "6.0.9"}

    async def info(connector: Connector) -> dict[str, str]:
        return await read_server_info(connector) | said

    monkeypatch.setattr("tocsin_server.engine.redis.deployment.read_server_info", info)
    assert await failed_start(redis_server.url) == (
        f"Redis at 127.0.0.1:{redis_server.port} is 6.0.9, but must be at least 6.2"
    )
    said["redis_version"] = "6.2.0"
    async with running(redis_server.url) as node:
        await assert_works(node)


@pytest.mark.usefixtures("short_timeouts")
async def test_an_engine_that_may_not_subscribe_does_not_start(volatile_redis: RedisServer) -> None:
    """It fails in bounded time, with the error of Redis."""
    volatile_redis.command("ACL", "SETUSER", "deaf", "on", ">x", "~*", "+@all", "resetchannels")
    said = await failed_start(f"redis://deaf:x@127.0.0.1:{volatile_redis.port}")
    assert "no permission" in said
