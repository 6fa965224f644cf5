"""Acknowledged publishes for a second of CPU time: in batches, and with one request each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from tests.bench import nodes
from tests.bench.http_back_end import BackEnd, as_json, publication

PUBLISHES = 4000
"""Publishes of each contender in one round."""

ROUNDS = 15
"""Rounds, whose times are summed."""

BATCH = 100
BACK_ENDS = 8
"""Concurrent back ends: single publishes then share pipeline batches, as they do under load."""

CHANNELS = 50
DATA = "x" * 126


async def per_cpu_second() -> dict[str, float]:
    """Publishes with history for a CPU second of node and Redis together: `batch` and `single`."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        node = stack.enter_context(nodes.run_node(redis.url))
        back_ends = [await stack.enter_async_context(BackEnd(node.port)) for _ in range(BACK_ENDS)]
        contenders = {"single": requests_of_one(), "batch": requests_of_many()}
        spent = dict.fromkeys(contenders, 0.0)
        for round_number in range(ROUNDS + 1):
            for name, requests in contenders.items():
                before = nodes.cpu_seconds(node.process.pid, redis.pid)
                await asyncio.gather(
                    *(
                        send(back_end, requests[number::BACK_ENDS])
                        for number, back_end in enumerate(back_ends)
                    )
                )
                if round_number:  # the first round warms up
                    spent[name] += nodes.cpu_seconds(node.process.pid, redis.pid) - before
    return {name: PUBLISHES * ROUNDS / seconds for name, seconds in spent.items()}


Request = tuple[str, bytes]


def publications() -> list[dict[str, Any]]:
    """The publications of both contenders."""
    return [publication(f"bench{number % CHANNELS}", DATA) for number in range(PUBLISHES)]


def requests_of_one() -> list[Request]:
    """One request for each publication."""
    return [("publish", as_json(one)) for one in publications()]


def requests_of_many() -> list[Request]:
    """One request for each batch. Its publications are executed in parallel."""
    commands = [{"publish": one} for one in publications()]
    return [
        ("batch", as_json({"commands": commands[first : first + BATCH], "parallel": True}))
        for first in range(0, PUBLISHES, BATCH)
    ]


async def send(back_end: BackEnd, requests: Sequence[Request]) -> None:
    """Send requests one after the other. Raises RuntimeError unless every publication gets an offset."""
    for method, body in requests:
        answer = await back_end.post(method, body)
        if answer.count(b'"offset"') != (BATCH if method == "batch" else 1):
            raise RuntimeError(f"not everything was acknowledged: {msgspec.json.decode(answer)}")
