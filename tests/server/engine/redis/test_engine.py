"""Starting: by any kind of address, or with a sentence that says why not."""

from pathlib import Path

import pytest

from tests.server.engine.contract.harness import LOG, Node, publication
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.certificates import write_certificate
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.server.engine.redis.waiting import until_not_ready, until_ready
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connector import Connector, read_server_info
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.membership.lease import Lease
from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.errors import EngineError


async def failed_start(url: str) -> str:
    """What a start says that must fail."""
    engine = RedisEngine(parse_address(url), "test")
    with pytest.raises(EngineError) as caught:
        await engine.start(RecordingHandler())
    await engine.stop()
    return str(caught.value)


async def works(node: Node) -> None:
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), LOG)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


async def test_where_no_redis_is_nothing_starts() -> None:
    """The error says where."""
    (port,) = free_ports(1)
    assert f"127.0.0.1:{port}" in await failed_start(f"redis://127.0.0.1:{port}")


async def test_where_nobody_answers_nothing_starts(swallower: BlackholeProxy) -> None:
    """In bounded time."""
    swallower.drop_all()
    assert "cannot be used" in await failed_start(swallower.url)


async def test_a_wrong_password_is_said_without_it(fleeting_redis: RedisServer) -> None:
    """So is a missing one."""
    fleeting_redis.command("CONFIG", "SET", "requirepass", "right")
    for credentials in ("", "user:wrong-one@", ":wrong-one@"):
        said = await failed_start(f"redis://{credentials}127.0.0.1:{fleeting_redis.port}")
        assert "wrong-one" not in said
        assert "cannot be used" in said


async def test_a_password_and_a_database(running: Running, fleeting_redis: RedisServer) -> None:
    """Are taken from the address, percent-encoded where they must be."""
    fleeting_redis.command("CONFIG", "SET", "requirepass", "p@ss:/word")
    async with running(f"redis://:p%40ss%3A%2Fword@127.0.0.1:{fleeting_redis.port}/3") as node:
        await works(node)
    fleeting_redis.command("AUTH", "p@ss:/word")
    info = fleeting_redis.client.info("keyspace")
    assert isinstance(info, dict)
    assert list(info) == ["db3"]


async def test_tls(running: Running, tmp_path: Path) -> None:
    """The certificate is checked against the authority that the address names."""
    certificate, key = write_certificate(tmp_path)
    lines = [
        "tls-port {free_port}",
        f"tls-cert-file {certificate}",
        f"tls-key-file {key}",
        "tls-auth-clients no",
    ]
    with redis_running(tmp_path, *lines) as server:
        async with running(f"rediss://127.0.0.1:{server.second_port}?ssl_ca_certs={certificate}") as node:
            await works(node)
        assert "cannot be used" in await failed_start(f"rediss://127.0.0.1:{server.second_port}")


@pytest.mark.parametrize(
    ("part", "kind", "step"), [("lease", Lease, "_renew"), ("pipeline", Pipeline, "_on_batch_done")]
)
async def test_a_part_that_dies_is_news_and_is_run_again(
    running: Running,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    kind: type,
    step: str,
) -> None:
    """No task dies silently: the node is not ready, says why, and is ready again."""
    async with running(redis_server.url) as node:

        def stumble(*_: object) -> None:
            raise KeyError(step)

        monkeypatch.setattr(kind, step, stumble)
        trouble = await until_not_ready(node)
        assert part in trouble
        monkeypatch.undo()
        await until_ready(node)
        await works(node)


async def test_an_old_redis_is_refused(
    running: Running, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it is and what it should be, which is less than is asked of a cluster."""
    said = {"redis_version": "6.0.9"}

    async def info(connector: Connector) -> dict[str, str]:
        return await read_server_info(connector) | said

    monkeypatch.setattr("tocsin_server.engine.redis.deployment.read_server_info", info)
    assert await failed_start(redis_server.url) == (
        f"Redis at 127.0.0.1:{redis_server.port} is 6.0.9, but must be at least 6.2"
    )
    said["redis_version"] = "6.2.0"
    async with running(redis_server.url) as node:
        await works(node)


async def test_where_announcements_are_forbidden_nothing_starts(fleeting_redis: RedisServer) -> None:
    """In bounded time, with what Redis says."""
    fleeting_redis.command("ACL", "SETUSER", "deaf", "on", ">x", "~*", "+@all", "resetchannels")
    said = await failed_start(f"redis://deaf:x@127.0.0.1:{fleeting_redis.port}")
    assert "no permission" in said
