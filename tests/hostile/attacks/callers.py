"""Attacks by callers that have an API key, and by programs that may publish in Redis and nothing else."""

from __future__ import annotations

import asyncio
import json

from tests.hostile.attacks.attacker import (
    Socket,
    Target,
    again_and_again,
    open_socket,
    open_websocket,
    request,
)
from tests.support.configs import API_KEY
from tests.support.tokens import connection_token

PUBLISHER = "publisher"
"""The Redis user that may publish into every channel, and nothing else. Its password is its name."""


async def _post(target: Target, method: str, body: bytes, connections: int) -> None:
    call = request(f"/api/{method}", method="POST", body=body, X_API_Key=API_KEY)

    async def attack() -> None:
        async with open_socket(target) as caller:
            while True:
                await caller.send(call)
                await _read_response(caller)

    await again_and_again(attack, connections)


async def _read_response(caller: Socket) -> None:
    head = (await caller.reader.readuntil(b"\r\n\r\n")).decode().lower()
    _, _, rest = head.partition("content-length: ")
    await caller.reader.readexactly(int(rest.split("\r\n")[0] or 0) if rest else 0)


async def patterns(target: Target) -> None:
    """Patterns of channels with many stars, which a backtracking engine never ends to match."""
    pattern = "*".join(["", *(["\\a"] * 30), "b"])
    async with open_websocket(target, token=connection_token("caller")) as subscriber:
        await subscriber.send_commands({"id": 2, "subscribe": {"channel": "open:" + "a" * 200}})
        await _post(target, "channels", json.dumps({"pattern": pattern}).encode(), 2)


async def batches(target: Target) -> None:
    """Batches of a thousand publications."""
    commands = [
        {"publish": {"channel": f"open:batch-{number % 50}", "data": number}} for number in range(1000)
    ]
    await _post(target, "batch", json.dumps({"commands": commands}).encode(), 4)


async def large_bodies(target: Target) -> None:
    """Publications of nearly a megabyte into a channel without subscribers."""
    body = json.dumps({"channel": "plain:large", "data": "x" * 1_000_000}).encode()
    await _post(target, "publish", body, 4)


async def nested_bodies(target: Target) -> None:
    """Deeply nested JSON, and objects with a hundred thousand keys."""
    keys = ",".join(f'"{number}":0' for number in range(80_000))
    bodies = [b"[" * 500_000, b'{"channel":"open:1","data":' + b"[" * 400_000, f"{{{keys}}}".encode()]
    async with asyncio.TaskGroup() as tasks:
        for body in bodies:
            tasks.create_task(_post(target, "publish", body, 1))


async def forged_messages(target: Target) -> None:
    """Forged control commands and publications, by a Redis user that may only publish."""
    messages = [b"", b"\x00" * 1000, b"1:" * 500]
    messages += [
        json.dumps(order).encode()
        for order in (
            {"disconnect": {"user": "honest-0", "code": 3503, "reason": "forged"}},
            {"drain": {"node": ""}},
            {"control": {"method": "disconnect", "user": "honest-0"}},
        )
    ]
    names = [b"tocsin:control", b"tocsin:revocations:{all}", b"tocsin:{honest:0}"]
    publishes = b"".join(_resp(b"PUBLISH", name, message) for name in names for message in messages)
    redis = Target(target.redis_port, target.redis_port)

    async def attack() -> None:
        async with open_socket(redis) as publisher:
            await publisher.send(_resp(b"AUTH", PUBLISHER.encode(), PUBLISHER.encode()))
            await publisher.flood_and_read(publishes)

    await again_and_again(attack)


def _resp(*words: bytes) -> bytes:
    """A Redis command, in its protocol RESP."""
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%s" % (len(words), b"".join(parts))
