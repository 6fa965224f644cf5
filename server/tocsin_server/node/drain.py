"""Draining: the clients of a node reconnect elsewhere one after the other, not in one crowd."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

PAUSE_SECONDS = 0.02
"""The longest pause between two clients, so that a handful of them is gone in a moment."""

HURRIED_PER_TURN = 50
"""How many connections are closed before the loop goes on, where there is no time for pauses."""

C = TypeVar("C")

log = structlog.get_logger()


async def drain(
    connections: list[C], disconnect: Callable[[C], None], seconds: float, is_hurried: Callable[[], bool]
) -> int:
    """Disconnect every connection, in random order, over `seconds` if they are many. Return their number.

    `is_hurried` is called before each pause: whether the rest must go at once.
    """
    random.shuffle(connections)
    pause = min(PAUSE_SECONDS, seconds / max(1, len(connections)))
    started = time.monotonic()
    for number, connection in enumerate(connections):
        disconnect(connection)
        ahead = started + number * pause - time.monotonic()
        if not is_hurried() and ahead > 0:
            await asyncio.sleep(ahead)
        elif number % HURRIED_PER_TURN == HURRIED_PER_TURN - 1:
            await asyncio.sleep(0)
    log.info("drained", connections=len(connections), seconds=round(time.monotonic() - started, 3))
    return len(connections)
