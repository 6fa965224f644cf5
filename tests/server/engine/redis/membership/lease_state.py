"""Leases, joins and leaves as tests see them."""

import asyncio

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED


def left(node: Node) -> list[str]:
    """The clients whose leave was received."""
    return [push.leave.info.client for _, push in node.handler.pushes if push.leave]


def joined(node: Node) -> list[str]:
    """The clients whose join was received."""
    return [push.join.info.client for _, push in node.handler.pushes if push.join]


async def leases_are_reaped(server: RedisServer, prefix: str, uid: str) -> None:
    """Wait until no lease of a node is left."""
    async with asyncio.timeout(STARTED):
        while leases(server, prefix, uid):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)


def leases(server: RedisServer, prefix: str, uid: str) -> set[bytes]:
    return {lease for lease in server.command("HKEYS", f"{prefix}:nodes") if lease.startswith(uid.encode())}
