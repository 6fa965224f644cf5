"""CPU time of a node and Redis for publications from an outbox and from a publish stream."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import asyncpg

from tests.bench import nodes
from tests.bench.publishing import CHANNELS, DATA, PUBLISHES, ROUNDS
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.postgres import postgres_running
from tests.support.server import run_server
from tocsin_server.sources.postgres.schema import schema

INSERT = f"""
    INSERT INTO tocsin_outbox (channel, data)
    SELECT 'bench' || n % {CHANNELS}, to_jsonb('{DATA}'::text) FROM generate_series(1, {PUBLISHES}) AS n
"""


async def rows_per_cpu_second() -> float:
    """Rows of the outbox, with history, for a CPU second of node and Redis together."""
    with postgres_running() as postgres, nodes.run_redis() as redis, tempfile.TemporaryDirectory() as folder:
        database = await asyncpg.connect(postgres.url)
        await database.execute(schema("tocsin_outbox"))
        config = {**nodes.CONFIG, "engine": nodes.engine_at(redis.url), "outbox": {"url": postgres.url}}
        with run_server(config, Path(folder), "--log-level", "warning") as node:
            spent = 0.0
            for round_number in range(ROUNDS + 1):
                before = nodes.cpu_seconds(node.process.pid, redis.pid)
                await database.execute(INSERT)
                while await database.fetchval("SELECT EXISTS (SELECT FROM tocsin_outbox)"):
                    await asyncio.sleep(0.02)
                if round_number:  # the first round warms up
                    spent += nodes.cpu_seconds(node.process.pid, redis.pid) - before
        await database.close()
    return PUBLISHES * ROUNDS / spent


async def entries_per_cpu_second() -> float:
    """Entries of the publish stream, with history, for a CPU second of node and Redis together.

    Redis also adds them.
    """
    with nodes.run_redis() as redis, tempfile.TemporaryDirectory() as folder:
        config = {
            **nodes.CONFIG,
            "engine": nodes.engine_at(redis.url),
            "publish_stream": {"enabled": True},
        }
        with run_server(config, Path(folder), "--log-level", "warning") as node:
            spent = 0.0
            for round_number in range(ROUNDS + 1):
                before = nodes.cpu_seconds(node.process.pid, redis.pid)
                await asyncio.to_thread(_add, redis)
                while redis.command("XLEN", "bench:publish"):
                    await asyncio.sleep(0.02)
                if round_number:
                    spent += nodes.cpu_seconds(node.process.pid, redis.pid) - before
    return PUBLISHES * ROUNDS / spent


def _add(redis: RedisServer) -> None:
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(PUBLISHES):
        pipeline.xadd("bench:publish", {"channel": f"bench{number % CHANNELS}", "data": f'"{DATA}"'})
    pipeline.execute()
