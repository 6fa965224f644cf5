"""Acknowledged publishes for a second of the server's CPU: many in one request, and a request each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from tests.bench import nodes
from tests.bench.http_back_end import BackEnd, as_json, publication

PUBLISHES = 4000
"""In a turn of each contender."""

TURNS = 15
"""Together, since the system counts a process's time in hundredths of a second only."""

BATCH = 100
BACK_ENDS = 8
"""Publish at the same time, so that also one each leave together for Redis, as they do under load."""

CHANNELS = 50
DATA = "x" * 126


async def per_cpu_second() -> dict[str, float]:
    """`batch` and `single`, with a log: how many for a CPU second of the node and Redis together."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.redis())
        node = stack.enter_context(nodes.node(redis.url))
        back_ends = [await stack.enter_async_context(BackEnd(node.port)) for _ in range(BACK_ENDS)]
        contenders = {"single": requests_of_one(), "batch": requests_of_many()}
        spent = dict.fromkeys(contenders, 0.0)
        for turn in range(TURNS + 1):
            for name, requests in contenders.items():
                before = nodes.cpu_seconds(node.process.pid, redis.pid)
                await asyncio.gather(
                    *(
                        send(back_end, requests[number::BACK_ENDS])
                        for number, back_end in enumerate(back_ends)
                    )
                )
                if turn:  # the first one warms up
                    spent[name] += nodes.cpu_seconds(node.process.pid, redis.pid) - before
    return {name: PUBLISHES * TURNS / seconds for name, seconds in spent.items()}


Request = tuple[str, bytes]


def publications() -> list[dict[str, Any]]:
    """What both contenders publish."""
    return [publication(f"bench{number % CHANNELS}", DATA) for number in range(PUBLISHES)]


def requests_of_one() -> list[Request]:
    """A request each."""
    return [("publish", as_json(one)) for one in publications()]


def requests_of_many() -> list[Request]:
    """A batch each, whose publications do not wait for each other."""
    commands = [{"publish": one} for one in publications()]
    return [
        ("batch", as_json({"commands": commands[first : first + BATCH], "parallel": True}))
        for first in range(0, PUBLISHES, BATCH)
    ]


async def send(back_end: BackEnd, requests: Sequence[Request]) -> None:
    """One after the other. Every publication must have got its offset."""
    for method, body in requests:
        answer = await back_end.post(method, body)
        if answer.count(b'"offset"') != (BATCH if method == "batch" else 1):
            raise RuntimeError(f"not everything was acknowledged: {msgspec.json.decode(answer)}")
