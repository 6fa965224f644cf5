"""Server checks: what Redis endangers is said in the log, in the health and in metrics."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.server.engine.contract.harness import HISTORY, Node, publication
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.server.engine.redis.test_engine import failed_start
from tests.support.redis_cluster import RedisCluster
from tests.support.timing import QUIET, STARTED
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.engine.redis import server_checks
from tocsin_server.engine.redis.server_checks import warnings_about
from tocsin_server.protocol.messages import ClientInfo

SAFE = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "used_memory": "80",
    "maxmemory": "100",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "role": "master",
    "connected_slaves": "1",
    "min_slaves_good_slaves": "1",
}


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "eviction", "maxmemory-policy allkeys-lru"),
        ({"maxmemory_policy": "volatile-lru"}, "eviction", "set noeviction"),
        ({"used_memory": "91"}, "memory", "90%"),
        ({"redis_version": "6.0.9"}, "version", "at least 6.2"),
        ({"redis_version": "6.2.14", "redis_mode": "cluster"}, "version", "at least 7.0"),
        ({"aof_enabled": "0"}, "persistence", "appendonly"),
        ({"aof_last_write_status": "err"}, "disk", "aof_last_write"),
        ({"rdb_last_bgsave_status": "err"}, "disk", "rdb_last_bgsave"),
        ({"min_slaves_good_slaves": None}, "replication", "min-replicas-to-write"),
    ],
)
def test_a_setting_that_endangers_a_promise_is_named(
    fields: Mapping[str, str | None], code: str, words: str
) -> None:
    """With the setting that is right."""
    info = {name: value for name, value in {**SAFE, **fields}.items() if value is not None}
    (warning,) = warnings_about(info)
    assert warning.code == code
    assert words in warning.text


def test_safe_settings_cause_no_warning() -> None:
    """Nor do fields that a managed Redis does not report, nor a Redis without a limit."""
    assert list(warnings_about(SAFE)) == []
    assert list(warnings_about({})) == []
    assert list(warnings_about({**SAFE, "maxmemory": "0"})) == []
    assert list(warnings_about({**SAFE, "maxmemory": "unlimited", "connected_slaves": ""})) == []


@pytest.fixture
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "CHECK_SECONDS", QUIET / 4)


@pytest.mark.usefixtures("frequent_checks")
async def test_warnings_begin_at_start_and_end(running: Running, persistent_redis: RedisServer) -> None:
    """Each is logged once."""
    persistent_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with capture_logs() as logs:
        async with running(persistent_redis.url) as node:
            (warning,) = node.engine.health.warnings
            assert warning.startswith(f"Redis at 127.0.0.1:{persistent_redis.port} has maxmemory-policy")
            assert not node.engine.unready_reason
            await asyncio.sleep(QUIET)
            persistent_redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            async with asyncio.timeout(STARTED):
                while node.engine.health.warnings:  # noqa: ASYNC110 - there is no event to await
                    await asyncio.sleep(QUIET / 10)
    said = [entry["event"] for entry in logs if entry.get("code") == "eviction"]
    assert said == ["redis_endangers_promises", "redis_warning_ended"]


@pytest.mark.usefixtures("frequent_checks")
async def test_evicted_keys_are_logged(running: Running, tmp_path: Path) -> None:
    """With their number."""
    lines = ("appendonly no", "maxmemory 4mb", "maxmemory-policy allkeys-lru")
    with redis_running(tmp_path, *lines) as server:
        async with running(server.url):
            with capture_logs() as logs:
                for number in range(600):
                    server.command("SET", f"filler:{number}", "x" * 10_000)
                async with asyncio.timeout(STARTED):
                    while "redis_evicted_keys" not in [entry["event"] for entry in logs]:  # noqa: ASYNC110
                        await asyncio.sleep(QUIET / 10)


async def test_every_master_of_a_cluster_is_checked(redis_cluster: RedisCluster, running: Running) -> None:
    """Each has its own settings."""
    server = redis_cluster.masters[1]
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    try:
        async with running(redis_cluster.url) as node:
            (warning,) = [text for text in node.engine.health.warnings if "maxmemory-policy" in text]
            assert f":{server.port} " in warning
            assert not node.engine.unready_reason
    finally:
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


# ---------------------------------------------------------------------------------------------- permissions

KEY_COMMANDS = (
    "+set +get +del +pexpire +pttl +sadd +srem +smembers +xadd +xrange +xrevrange +xlen +xdel +xtrim "
    "+hset +hget +hmget +hgetall +hincrby +hexists +hkeys +hvals +hlen +hdel"
)
NEEDED = (
    "+select +client|setname +info +time +script|load +evalsha "
    f"+subscribe +unsubscribe +publish {KEY_COMMANDS}"
)
"""The commands that a node needs on a standalone Redis, as the documentation lists them."""
NEEDED_ON_CLUSTER = (
    "+client|setname +info +time +script|load +evalsha +cluster|info +cluster|slots +asking "
    f"+ssubscribe +sunsubscribe +spublish {KEY_COMMANDS}"
)


def allow(server: RedisServer, rules: str, prefix: str, pubsub_prefix: str = "") -> str:
    """Create the user `node` with these rules on the names of a system. Returns its URL."""
    names = (f"~{prefix}:*", "resetchannels", f"&{pubsub_prefix or prefix}:*")
    server.command("ACL", "SETUSER", "node", "reset", "on", ">pass", *names, *rules.split())
    return f"redis://node:pass@127.0.0.1:{server.port}"


async def assert_everything_works(node: Node) -> None:
    """Every call of the engine."""
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), HISTORY)
    await node.broker.remove_history("news")
    await node.presence.add("news", ClientInfo("1", "c1"), is_announced=True)
    assert await node.presence.stats("news") == (1, 1)
    await node.presence.remove("news", "c1")
    await node.broker.unsubscribe("news")
    await node.catch_up()
    assert len((await node.nodes.survey(SurveyRequest())).nodes) == 1


@pytest.fixture(params=[0, 2])
def database(request: pytest.FixtureRequest) -> int:
    """The number of a database."""
    number: int = request.param
    return number


def test_the_documentation_lists_these_permissions() -> None:
    """In its examples for `ACL SETUSER`."""
    page = (Path(__file__).parents[4] / "docs" / "operate.md").read_text()
    documented = page.split("### The user of a node (ACL)")[1].split("\n## ")[0]
    standalone, cluster = (set(re.findall(r"\+[a-z|-]+", block)) for block in documented.split("```")[1:4:2])
    assert standalone == set(NEEDED.split())
    only_standalone = {"+select", "+subscribe", "+unsubscribe", "+publish"}
    assert (standalone - only_standalone) | cluster == set(NEEDED_ON_CLUSTER.split())


async def test_a_node_needs_the_documented_permissions(
    running: Running, volatile_redis: RedisServer, prefix: str, database: int
) -> None:
    """It works with them alone: these commands, on these keys and pub/sub names."""
    url = allow(volatile_redis, NEEDED, prefix, f"{prefix}/{database}" if database else "")
    async with running(f"{url}/{database}") as node:
        await assert_everything_works(node)
        assert [text for text in node.engine.health.warnings if "appendonly" not in text] == []
    assert volatile_redis.command("ACL", "LOG") == []


async def test_a_node_of_a_cluster_needs_the_documented_permissions(
    running: Running, redis_cluster: RedisCluster, prefix: str
) -> None:
    """The user has them at each server."""
    for server in redis_cluster.servers:
        allow(server, NEEDED_ON_CLUSTER, prefix)
        server.command("ACL", "LOG", "RESET")
    try:
        async with running(redis_cluster.url.replace("://", "://node:pass@")) as node:
            await assert_everything_works(node)
        assert [server.command("ACL", "LOG") for server in redis_cluster.masters] == [[]] * 3
    finally:
        for server in redis_cluster.servers:
            server.command("ACL", "DELUSER", "node")


@pytest.mark.parametrize("missing", ["xadd", "hincrby", "set", "unsubscribe", "smembers"])
async def test_a_missing_permission_is_named_at_start(volatile_redis: RedisServer, missing: str) -> None:
    """The node does not start: some calls would fail later."""
    url = allow(volatile_redis, NEEDED.replace(f"+{missing} ", ""), "test")
    said = await failed_start(url)
    assert said == (
        f"Redis at 127.0.0.1:{volatile_redis.port} does not let the user of engine.url run {missing.upper()}"
    )


async def test_a_command_that_redis_does_not_have_is_named_at_start(tmp_path: Path) -> None:
    """A managed Redis may have removed it."""
    lines = ('rename-command XREVRANGE ""', 'rename-command UNSUBSCRIBE ""')
    with redis_running(tmp_path, *lines) as server:
        assert (await failed_start(server.url)).endswith("run XREVRANGE, UNSUBSCRIBE")


@pytest.mark.usefixtures("frequent_checks")
async def test_a_permission_that_is_taken_away_makes_a_node_unready(
    running: Running, volatile_redis: RedisServer, prefix: str
) -> None:
    """Until it is given again."""
    with capture_logs() as logs:
        async with running(allow(volatile_redis, NEEDED, prefix)) as node:
            for rule, is_unready in (("-xadd", True), ("+xadd", False)):
                volatile_redis.command("ACL", "SETUSER", "node", rule)
                async with asyncio.timeout(STARTED):
                    while ("XADD" in node.engine.unready_reason) != is_unready:  # noqa: ASYNC110
                        await asyncio.sleep(QUIET / 10)
    assert [entry["commands"] for entry in logs if entry["event"] == "redis_refuses_commands"] == ["XADD"]


async def test_a_redis_that_rejects_info_is_a_warning(
    running: Running, volatile_redis: RedisServer, prefix: str
) -> None:
    """Then its settings cannot be checked."""
    url = allow(volatile_redis, NEEDED.replace("+info", "+info|server"), prefix)
    async with running(url) as node:
        assert "INFO" in node.engine.health.warnings[0]
        assert node.engine.unready_reason == ""
