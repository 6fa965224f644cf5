"""The Redis presence store, with many members."""

from typing import Any

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.redis_server import RedisServer
from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.protocol.messages import ClientInfo


async def test_ten_thousand_members_can_be_read(node: Node, redis_server: RedisServer, prefix: str) -> None:
    """They can also be counted."""
    infos = [ClientInfo(f"{number % 100}", f"c{number}") for number in range(10_000)]
    entries: dict[Any, Any] = {
        info.client: encoding.encode_presence_entry("n9.x", False, info) for info in infos
    }
    keys = Keys(prefix)
    redis_server.client.hset(keys.presence("news"), mapping=entries)
    redis_server.client.hset(keys.users("news"), mapping={f"{user}": 100 for user in range(100)})
    assert len(await node.presence.members("news")) == 10_000
    assert await node.presence.stats("news") == (10_000, 100)
