"""Nodes that read a publish stream, and the wait until it is empty."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.server.engine.redis.redis_server import RedisServer
from tests.server.served_node import settings_of
from tests.server.sources.outbox_table import LOG
from tests.support.timing import progress_timeout
from tocsin_server.app import create_app
from tocsin_server.node.node import Node

SOURCE = "publish_stream"


def node_of(url: str, prefix: str, **sections: Any) -> Node:
    """A node that does not run yet."""
    stream = {"enabled": True, **sections.pop("publish_stream", {})}
    engine = {"url": url, "prefix": prefix}
    settings = settings_of(
        {"namespaces": {"log": LOG}, "engine": engine, "publish_stream": stream, **sections}
    )
    node: Node = create_app(settings).state.node
    return node


async def until_empty(server: RedisServer, prefix: str) -> None:
    """Wait until every entry is published."""
    left = [1]
    async with progress_timeout(lambda: left[-1]):
        while left[-1]:
            await asyncio.sleep(0.005)
            left.append(server.command("XLEN", f"{prefix}:publish"))
