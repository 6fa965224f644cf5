"""The publish stream in a Redis Cluster."""

from __future__ import annotations

from tests.server.sources.outbox_table import published
from tests.server.sources.stream_nodes import node_of, until_empty
from tests.support.redis_cluster import RedisCluster


async def test_one_slot_of_a_cluster_has_the_stream(redis_cluster: RedisCluster, prefix: str) -> None:
    """Its failures and the claim too. Publications go to the slots of their channels."""
    channels = [f"log:{name}" for name in range(6)]
    server = redis_cluster.master_of(f"{prefix}:publish")
    async with node_of(redis_cluster.url, prefix).running() as node:
        for channel in [*channels, "unknown:a"]:
            server.command("XADD", f"{prefix}:publish", "*", "channel", channel, "data", 1)
        await until_empty(server, prefix)
        assert [await published(node, channel) for channel in channels] == [[1]] * 6
        assert server.command("XLEN", f"{prefix}:{{{prefix}:publish}}:failures") == 1
