"""Server checks: whether the settings and the state of Redis keep the promises that rest on them.

They are read from INFO, because a managed Redis rejects CONFIG. The commands that a node needs are tried,
because its user may ask for its permissions only if it has even more of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import structlog

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.connections.connector import OLDEST_CLUSTER_VERSION, OLDEST_VERSION
from tocsin_server.engine.redis.deployment import Deployment, Shard
from tocsin_server.engine.redis.interfaces import PendingReply
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.pipeline import CommandRejected
from tocsin_server.engine.redis.pubsub.connection import PubSubConnection
from tocsin_server.errors import EngineError

CHECK_SECONDS = 15.0
"""The interval between two checks."""

MEMORY_SECONDS = 1.0
"""The interval between two reads of the used memory, in which clients can fill little of it."""

FULL = 0.9
"""The used part of Redis' memory above which a node warns."""

REFUSALS = (
    *("NOPERM", "ACL failure", "no permissions", "can't run this command", "can't access"),
    *("unknown command", "Unknown Redis command"),  # a managed Redis may have renamed or removed it
)
"""Parts of the errors of a command that the user cannot run. Those within a script depend on the version."""

log = structlog.get_logger()


class ServerWarning(NamedTuple):
    """A promise that a Redis server endangers. `code` is for logs, `text` a sentence without its subject."""

    code: str
    text: str


class CheckedServer:
    """What the last check of one server found."""

    def __init__(self) -> None:
        self.warnings: dict[str, str] = {}
        self.evicted_keys: int | None = None
        self.missing_permissions = ""
        self.is_evicting = False
        self.used_part = 0.0
        """The part of its maxmemory that it uses. 0 if it has none, or evicts keys instead of rejecting."""


class ServerChecks:
    """Checks each server of a deployment at start, and every CHECK_SECONDS.

    The mutable state is what the last checks found; only `check` and `_check_memory` change it.
    """

    def __init__(self, deployment: Deployment, keys: Keys, memory_limit: float = 1.0) -> None:
        self._deployment = deployment
        self._memory_limit = memory_limit
        self._keys = keys
        self._servers: dict[str, CheckedServer] = {}
        self.is_evicting = False
        """Whether a server may evict keys."""
        self.is_nearly_full = False
        """Whether a server uses more than the allowed part of its memory."""
        self.uid = ""
        """The node's uid, for the names on which commands are tried. The owner sets it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The current warnings about all servers, as sentences."""
        return tuple(
            f"Redis at {name} {text}."
            for name, server in self._servers.items()
            for text in server.warnings.values()
        )

    @property
    def unready_reason(self) -> str:
        """Which commands the node's user may not run, as a sentence. Empty if it may run all."""
        for name, server in self._servers.items():
            if server.missing_permissions:
                return (
                    f"Redis at {name} does not let the user of engine.url run {server.missing_permissions}."
                )
        return ""

    def raise_if_unusable(self) -> None:
        """Raise EngineError if a server rejects commands that the node needs."""
        if self.unready_reason:
            raise EngineError(self.unready_reason.rstrip("."))

    async def run(self) -> NoReturn:
        """Check until cancelled. The owner makes the first check."""
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        while True:
            await asyncio.sleep(min(MEMORY_SECONDS, CHECK_SECONDS))
            if loop.time() - checked_at >= CHECK_SECONDS:
                checked_at = loop.time()
                await self.check()
            else:
                await asyncio.gather(*map(self._check_memory, self._deployment.shards))

    async def check(self) -> None:
        """Check all servers once. A server that does not answer keeps what its last check found."""
        shards = {shard.pipeline.name: shard for shard in self._deployment.shards}
        self._servers = {name: self._servers.get(name, CheckedServer()) for name in shards}
        self._summarize()
        await asyncio.gather(*(self._check(shard, self._servers[name]) for name, shard in shards.items()))

    async def _check(self, shard: Shard[PubSubConnection], server: CheckedServer) -> None:
        name = shard.pipeline.name
        try:
            warnings = await self._read_info(shard, server)
            refused = await self._missing_permissions(shard)
        except EngineError:
            return
        if refused and refused != server.missing_permissions:
            log.error("redis_refuses_commands", redis=name, commands=refused)
        server.missing_permissions = refused
        for warning in warnings.values():
            if server.warnings.get(warning.code) != warning.text:
                log.warning("redis_endangers_promises", redis=name, code=warning.code, warning=warning.text)
        for code in server.warnings.keys() - warnings.keys():
            log.info("redis_warning_ended", redis=name, code=code)
        server.warnings = {warning.code: warning.text for warning in warnings.values()}

    async def _check_memory(self, shard: Shard[PubSubConnection]) -> None:
        server = self._servers.get(shard.pipeline.name)
        if server is not None:
            with suppress(EngineError):
                self._note_memory(server, parse_info(await shard.pipeline.execute("INFO", "memory")))

    def _is_over_limit(self, used_part: float) -> bool:
        return self._memory_limit < 1 and used_part > self._memory_limit

    def _note_memory(self, server: CheckedServer, info: Mapping[str, str]) -> None:
        used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
        server.is_evicting = limit > 0 and info.get("maxmemory_policy", "noeviction") != "noeviction"
        used_part = used / limit if limit and not server.is_evicting else 0.0
        if self._is_over_limit(used_part) != self._is_over_limit(server.used_part):
            is_over = self._is_over_limit(used_part)
            event = "redis_memory_nearly_full" if is_over else "redis_memory_available"
            log.warning(event, used_part=round(used_part, 3), limit=self._memory_limit)
        server.used_part = used_part
        self._summarize()

    def _summarize(self) -> None:
        """Note for all servers together what each publication asks."""
        servers = self._servers.values()
        self.is_evicting = any(server.is_evicting for server in servers)
        self.is_nearly_full = any(self._is_over_limit(server.used_part) for server in servers)

    async def _read_info(
        self, shard: Shard[PubSubConnection], server: CheckedServer
    ) -> dict[str, ServerWarning]:
        try:
            info = parse_info(await shard.pipeline.execute("INFO"))
        except CommandRejected as error:
            unchecked = f"does not let this node read INFO, so its settings are unchecked ({error})"
            return {"unchecked": ServerWarning("unchecked", unchecked)}
        self._note_memory(server, info)
        evicted_before, server.evicted_keys = server.evicted_keys, _number(info, "evicted_keys")
        if evicted_before is not None and server.evicted_keys > evicted_before:
            log.warning(
                "redis_evicted_keys", redis=shard.pipeline.name, keys=server.evicted_keys - evicted_before
            )
        return {warning.code: warning for warning in warnings_about(info)}

    async def _missing_permissions(self, shard: Shard[PubSubConnection]) -> str:
        """The commands that the user may not run, as a list in words. Raises EngineError."""
        pipeline = shard.pipeline
        tag = shard.probe.name.rpartition(":")[2]  # on a cluster, a hash tag of the server
        key, name = self._keys.check(self.uid, tag), self._keys.check_name(self.uid, tag)
        replies: dict[str, PendingReply] = {
            "EVALSHA": pipeline.run_script(scripts.PERMISSIONS, [key], pipeline.publish_command, name)
        }
        if self._deployment.commands.is_sharded:
            replies["SUNSUBSCRIBE"] = pipeline.execute("SUNSUBSCRIBE", name)
            replies["ASKING"] = pipeline.execute("ASKING")
        else:
            replies["UNSUBSCRIBE"] = pipeline.execute("UNSUBSCRIBE", name)
        results = await asyncio.gather(*replies.values(), return_exceptions=True)
        return ", ".join(dict.fromkeys(_refused_commands(dict(zip(replies, results, strict=True)))))


def _refused_commands(results: Mapping[str, Any]) -> Iterator[str]:
    """The commands that failed for lack of a permission. Raises EngineError if Redis did not answer."""
    for command, result in results.items():
        if isinstance(result, CommandRejected):
            if _is_refusal(str(result)):
                yield command
        elif isinstance(result, BaseException):
            raise result
        elif command == "EVALSHA":
            texts = [word.decode(errors="replace") for word in result]
            for tried, error in zip(texts[::2], texts[1::2], strict=True):
                if _is_refusal(error):
                    yield tried


def _is_refusal(error: str) -> bool:
    return any(part in error for part in REFUSALS)


def parse_info(reply: bytes) -> dict[str, str]:
    """Parse the reply to INFO into its fields."""
    lines = bytes(reply).decode(errors="replace").splitlines()
    return dict(line.partition(":")[::2] for line in lines if ":" in line)


def _number(info: Mapping[str, str], name: str) -> int:
    """A number of INFO. 0 if it is missing, or if a managed Redis says something else there."""
    value = info.get(name, "")
    return int(value) if value.isdecimal() else 0


def warnings_about(info: Mapping[str, str]) -> Iterator[ServerWarning]:
    """Which promises a server endangers, by the fields of INFO. A field that is missing says nothing."""
    yield from _version_warnings(info)
    yield from _memory_warnings(info)
    yield from _persistence_warnings(info)
    yield from _replication_warnings(info)


def _version_warnings(info: Mapping[str, str]) -> Iterator[ServerWarning]:
    """After a failover, another server may answer than at the start of the node."""
    oldest = OLDEST_CLUSTER_VERSION if info.get("redis_mode") == "cluster" else OLDEST_VERSION
    version = info.get("redis_version", "")
    numbers = [int(number) for number in version.split(".")[:2] if number.isdecimal()]
    if numbers and tuple(numbers) < oldest:
        yield ServerWarning("version", f"is {version}, but must be at least {oldest[0]}.{oldest[1]}")


def _memory_warnings(info: Mapping[str, str]) -> Iterator[ServerWarning]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield ServerWarning(
            "eviction",
            f"has maxmemory-policy {policy}, so it evicts histories, presence and idempotency keys when its "
            "memory is full; set noeviction",
        )
    used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
    if limit and used > FULL * limit:
        yield ServerWarning(
            "memory", f"uses more than {FULL:.0%} of its maxmemory; when it is full, it rejects or evicts"
        )


def _persistence_warnings(info: Mapping[str, str]) -> Iterator[ServerWarning]:
    if info.get("aof_enabled") == "0":
        yield ServerWarning(
            "persistence",
            "has appendonly no, so a restart loses publications since its last snapshot, or all; "
            "set appendonly yes",
        )
    failed = [
        operation
        for operation, state in (
            ("aof_last_write", info.get("aof_last_write_status", "ok")),
            ("aof_last_bgrewrite", info.get("aof_last_bgrewrite_status", "ok")),
            ("rdb_last_bgsave", info.get("rdb_last_bgsave_status", "ok")),
        )
        if state != "ok"
    ]
    if failed:
        yield ServerWarning("disk", f"cannot write to its disk ({', '.join(failed)} failed)")


def _replication_warnings(info: Mapping[str, str]) -> Iterator[ServerWarning]:
    has_replicas = _number(info, "connected_slaves") > 0
    if info.get("role") == "master" and has_replicas and "min_slaves_good_slaves" not in info:
        yield ServerWarning(
            "replication",
            "has replicas but no min-replicas-to-write, so a master that is cut off goes on accepting "
            "publications that a failover loses; set min-replicas-to-write 1",
        )
