"""What breaks nodes, links and a Redis that stands alone: for real, and making sure that it did."""

from __future__ import annotations

import asyncio

import httpx

from tests.faults.cluster import NAMESPACE, Member
from tests.faults.fault_environment import (
    CHANNELS,
    CONNECTION_ENDED,
    DEAF_SECONDS,
    LATE_SECONDS,
    LINK_BROKEN,
    LOG_DIED,
    TOO_SLOW,
    Fault,
    Logs,
    Setting,
    Stage,
)
from tests.faults.record import Journal
from tests.faults.standalone import Alone, alone
from tests.faults.subscribers import Wire
from tests.support.api import NO_TLS
from tests.support.timing import STARTED, TICK

PARTITION_SECONDS = 5.0
"""Longer than a node takes to notice."""

KILOBYTE = "x" * 1000

LINK_LIMIT_KILOBYTES = 48
LINK_PADDING = 80 * KILOBYTE
"""Redis counts what it keeps for a link but for the first 16 kB, so one of these is too much at once."""


async def kill(stage: Stage[Alone]) -> None:
    """A node dies without a word, the one that has most connections, and is started again."""
    member = max(stage.cluster.members, key=lambda member: member.connections)
    await member.kill()
    await member.start()


async def roll(stage: Stage[Alone]) -> None:
    """Each node leaves on purpose, and comes back before the next one leaves."""
    for member in stage.cluster.members:
        await member.stop()
        await member.start()
        await stage.cluster.until_ready(member)


async def cut_links(stage: Stage[Alone]) -> None:
    """Redis hangs up on everybody who hears announcements."""
    assert await asyncio.to_thread(stage.cluster.redis.kill_pubsub_connections) == len(stage.cluster.members)


async def silence_link(stage: Stage[Alone]) -> None:
    """The last node's link stays open, and nothing comes through, until that node gives it up."""
    links = stage.cluster.listener_ids()
    stage.cluster.way.drop_pubsub()
    async with asyncio.timeout(STARTED):
        while links <= stage.cluster.listener_ids():  # noqa: ASYNC110 - Redis has to be asked
            await asyncio.sleep(TICK)


async def overflow_links(stage: Stage[Alone]) -> None:
    """What waits for a link passes the limit of Redis, which hangs up and drops all of it."""
    redis = stage.cluster.redis
    (before,) = redis.command("CONFIG", "GET", "client-output-buffer-limit").values()
    links = stage.cluster.listener_ids()
    redis.command("CONFIG", "SET", "client-output-buffer-limit", f"pubsub {LINK_LIMIT_KILOBYTES}kb 0 0")
    try:
        async with asyncio.timeout(STARTED):
            while links & stage.cluster.listener_ids():
                await asyncio.gather(*(stage.publishing.publish(name, LINK_PADDING) for name in CHANNELS))
    finally:
        redis.command("CONFIG", "SET", "client-output-buffer-limit", before)


async def freeze_redis(stage: Stage[Alone]) -> None:
    """Redis does nothing for a while, and its connections stay open."""
    stage.cluster.redis.freeze()
    try:
        await asyncio.sleep(stage.size.frozen_seconds)
    finally:
        stage.cluster.redis.thaw()


async def restart_redis(stage: Stage[Alone]) -> None:
    """Redis is killed, and starts with the file that it wrote."""
    await stage.cluster.restart_redis()


async def empty_redis(stage: Stage[Alone]) -> None:
    """Redis is killed, and starts with nothing: every log has died."""
    await stage.cluster.restart_redis(empty=True)


async def part(stage: Stage[Alone]) -> None:
    """The last node cannot reach Redis, and its connections stay open."""
    stage.cluster.way.drop_all()
    await stage.cluster.until_not_ready(stage.cluster.members[-1])
    await asyncio.sleep(PARTITION_SECONDS)
    stage.cluster.way.pass_all()


async def read_nothing(stage: Stage[Alone]) -> None:
    """A subscriber stays connected and reads nothing, until its node gives it up; then it comes back."""
    member, wire, heavy = stage.cluster.members[0], Wire(receive_bytes=65536), f"{NAMESPACE}:heavy"
    channels = [*CHANNELS[:3], heavy]
    journals = [Journal(stage.record, channel, "who read nothing") for channel in channels]
    reading = asyncio.create_task(wire.subscribe(member.url, journals))
    try:
        await stage.arrive(journals, await stage.mark(channels))
        wire.may_read.clear()
        given_up = await _given_up(member)
        async with asyncio.timeout(STARTED):
            while await _given_up(member) == given_up:
                await asyncio.gather(*(stage.publishing.publish(heavy, 240 * KILOBYTE) for _ in range(4)))
        wire.may_read.set()
        await stage.arrive(journals, await stage.mark(channels))
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _given_up(member: Member) -> float:
    """How many connections this node has closed since they were too slow."""
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
        text = (await http.get(f"{member.url}/metrics")).text
    counts = [
        line.split()[-1] for line in text.splitlines() if line.startswith('tocsin_closes_total{code="3008"}')
    ]
    return float(counts[0]) if counts else 0


DEAF = DEAF_SECONDS + LATE_SECONDS

ON_ONE_REDIS = Setting(
    alone,
    brief=[
        Fault("kill -9 of a node", kill, CONNECTION_ENDED, LATE_SECONDS, ends_connections=True),
        Fault(
            "SIGTERM of each node in turn",
            roll,
            CONNECTION_ENDED,
            LATE_SECONDS,
            ends_connections=True,
            lets_publish=True,
        ),
        Fault("CLIENT KILL TYPE pubsub", cut_links, LINK_BROKEN, LATE_SECONDS),
        Fault("a link that is open and silent", silence_link, LINK_BROKEN, DEAF, lets_publish=True),
        Fault("Redis frozen", freeze_redis, LINK_BROKEN, DEAF),
        Fault("Redis restarted, with its file", restart_redis, LINK_BROKEN, LATE_SECONDS),
    ],
    long=[
        Fault("output buffer of the links full", overflow_links, LINK_BROKEN),
        Fault("a node parted from Redis", part, LINK_BROKEN, DEAF, lets_publish=True),
        Fault("a subscriber that reads nothing", read_nothing, TOO_SLOW),
        Fault("Redis restarted, empty", empty_redis, LOG_DIED, logs=Logs.DIE),
    ],
)
