"""Revocations of nodes that share a Redis: lost announcements, lost data, and forged messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.server.engine.redis.redis_server import RedisServer
from tests.server.node.fake_connection import running
from tests.server.node.test_revoking import NOW, connect_error, with_token
from tests.server.served_node import until
from tests.support.tokens import connection_token
from tocsin_server.core.revocations import Revocation
from tocsin_server.engine.redis import revocations as redis_revocations
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.revocations import RevocationHandler
from tocsin_server.node.node import Node


@asynccontextmanager
async def sharing(redis_server: RedisServer, prefix: str) -> AsyncIterator[Node]:
    """A node over a Redis that it shares with the others of the prefix."""
    async with running(RedisEngine(parse_address(redis_server.url), prefix)) as node:
        yield node


async def test_a_token_is_revoked_on_every_node_and_after_a_restart(redis_server: RedisServer) -> None:
    async with sharing(redis_server, "revoke1") as other:
        async with sharing(redis_server, "revoke1") as node:
            here, there = await with_token(node, jti="t1"), await with_token(other, jti="t1")
            blocked = await with_token(other, "bob")
            await node.revoke(Revocation(0, token_id="t1"))
            await node.revoke(Revocation(0, user="bob"))
            await until(lambda: here.closed_with and there.closed_with and blocked.closed_with)
        async with sharing(redis_server, "revoke1") as restarted:
            assert await connect_error(restarted, connection_token("ann", jti="t1")) == 109
            assert await connect_error(restarted, connection_token("bob", iat=NOW)) == 109


async def test_a_node_that_misses_an_announcement_reads_the_revocation(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the latest ones every few seconds anyway."""
    monkeypatch.setattr(redis_revocations, "POLL_SECONDS", 0.05)
    async with sharing(redis_server, "revoke2") as node, sharing(redis_server, "revoke2") as deaf:
        store = deaf.engine.revocations
        assert isinstance(store, redis_revocations.RedisRevocationStore)
        await store._pubsub.unsubscribe(store._keys.revocation_announcements)
        connection = await with_token(deaf, jti="t1")
        await node.revoke(Revocation(0, token_id="t1"))
        await until(lambda: connection.closed_with)


async def test_nodes_restore_what_redis_has_lost(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover, or a restart without persistence: a node that starts later knows it too."""
    monkeypatch.setattr(redis_revocations, "POLL_SECONDS", 0.05)
    async with sharing(redis_server, "revoke3") as node:
        await node.revoke(Revocation(0, token_id="t1"))
        await node.revoke(Revocation(0, user="bob"))
        redis_server.client.delete(*redis_server.client.keys("revoke3:revocations:*"))
        for client in redis_server.client.client_list():
            if client["id"] != str(redis_server.client.client_id()):
                redis_server.client.client_kill_filter(_id=client["id"])
        await until(lambda: redis_server.client.hlen("revoke3:revocations:{all}") >= 2)
        async with sharing(redis_server, "revoke3") as later:
            assert sorted(map(str, later.engine_callbacks.known_revocations)) == sorted(
                map(str, node.engine_callbacks.known_revocations)
            )


async def test_nodes_restore_what_redis_has_evicted(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays, so that nodes look from time to time."""
    monkeypatch.setattr(redis_revocations, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(redis_revocations, "CHECK_SECONDS", 0.1)
    async with sharing(redis_server, "revoke6") as node:
        await node.revoke(Revocation(0, token_id="t1"))
        redis_server.client.delete("revoke6:revocations:{all}")
        await until(lambda: redis_server.client.hlen("revoke6:revocations:{all}"))


async def test_a_node_that_missed_more_than_the_stream_keeps_reads_all(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a pause of its process. It reads in pages otherwise."""
    monkeypatch.setattr(redis_revocations, "STREAM_LENGTH", 3)
    monkeypatch.setattr(redis_revocations, "_PAGE", 2)
    monkeypatch.setattr(redis_revocations, "POLL_SECONDS", 0.05)
    async with sharing(redis_server, "revoke5") as node, sharing(redis_server, "revoke5") as paused:
        store = paused.engine.revocations
        assert isinstance(store, redis_revocations.RedisRevocationStore)
        for added in (3, 1, 9):
            resumed = asyncio.Event()

            async def read_new(handler: RevocationHandler, gate: asyncio.Event = resumed) -> None:
                await gate.wait()
                await redis_revocations.RedisRevocationStore._read_new(store, handler)

            monkeypatch.setattr(store, "_read_new", read_new)
            for number in range(added):
                await node.revoke(Revocation(0, token_id=f"{added}.{number}"))
            resumed.set()
            await until(
                lambda: (
                    len(paused.engine_callbacks.known_revocations)
                    == len(node.engine_callbacks.known_revocations)
                )
            )


async def test_a_forged_announcement_revokes_nothing(redis_server: RedisServer) -> None:
    """Announcements have no content: to forge a revocation takes more than the right to publish."""
    async with sharing(redis_server, "revoke4") as node:
        connection = await with_token(node, jti="t1")
        for message in (b"", b"t1", b'{"expire_at":1e12,"token_id":"t1"}'):
            redis_server.client.publish("revoke4:revocations:{all}", message)
        await node.revoke(Revocation(0, token_id="t2"))
        assert [one.token_id for one in node.engine_callbacks.known_revocations] == ["t2"]
        assert not connection.closed_with
