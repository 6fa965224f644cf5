"""Attacks with commands, by clients that are connected."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from tests.hostile.attacks.attacker import Socket, Target, again_and_again, open_websocket
from tests.support.raw_connection import frame
from tests.support.tokens import connection_token

USER = "attacker"


def _commands(count: int, method: str, params: Callable[[int], dict[str, object]]) -> bytes:
    """A frame of commands, whose ids begin with 2."""
    return frame("\n".join(json.dumps({"id": 2 + index, method: params(index)}) for index in range(count)))


async def _as_user(target: Target, send: Callable[[Socket], object], connections: int = 1) -> None:
    async def attack() -> None:
        async with open_websocket(target, token=connection_token(USER)) as attacker:
            await send(attacker)  # type: ignore[misc]

    await again_and_again(attack, connections)


async def cheap_commands(target: Target) -> None:
    """Thousands of commands in each message that need no call of the engine."""
    message = _commands(3000, "unsubscribe", lambda _: {"channel": "open:none"})
    await _as_user(target, lambda attacker: attacker.flood_and_read(message))


async def unread_replies(target: Target) -> None:
    """The same commands by a client that reads no reply."""
    message = _commands(3000, "unsubscribe", lambda _: {"channel": "open:none"})

    async def attack() -> None:
        async with open_websocket(target, token=connection_token(USER), receive_buffer=4096) as attacker:
            await attacker.flood(message)

    await again_and_again(attack, 4)


async def endless_channels(target: Target) -> None:
    """Subscribes to new channels with history, each left at once."""
    numbers = itertools.count()

    def message() -> bytes:
        lines = []
        for _ in range(50):
            channel = {"channel": f"open:endless-{next(numbers)}"}
            lines += [
                json.dumps({"id": 2, "subscribe": channel}),
                json.dumps({"id": 3, "unsubscribe": channel}),
            ]
        return frame("\n".join(lines))

    async def send(attacker: Socket) -> None:
        while True:
            await attacker.send(message())
            if not await attacker.reader.read(65_536):
                return

    await _as_user(target, send, 2)


async def invalid_tokens(target: Target) -> None:
    """Subscribes with invalid tokens whose check is expensive (P-521)."""
    key = ec.generate_private_key(ec.SECP521R1())
    token = jwt.encode({"sub": USER, "channel": "closed:1"}, key, algorithm="ES512")
    message = _commands(100, "subscribe", lambda index: {"channel": f"closed:{index}", "token": token})
    await _as_user(target, lambda attacker: attacker.flood_and_read(message), 2)


async def refused_commands(target: Target) -> None:
    """Commands that are all refused."""
    message = _commands(500, "history", lambda index: {"channel": f"closed:{index}", "limit": 10})
    await _as_user(target, lambda attacker: attacker.flood_and_read(message), 2)


async def nested_values(target: Target) -> None:
    """Publications of deeply nested arrays, of long numbers, and of thousands of equal keys."""
    values = [
        "[" * 50_000 + "]" * 50_000,
        "1" * 100_000,
        "{" + ",".join(f'"{2**61 - 1 + index}":0' for index in range(10_000)) + "}",
        "{" + ",".join('"a":0' for _ in range(20_000)) + "}",
    ]
    lines = [
        f'{{"id":{2 + index},"publish":{{"channel":"open:2","data":{value}}}}}'
        for index, value in enumerate(values)
    ]
    messages = b"".join(frame(line) for line in lines)
    await _as_user(target, lambda attacker: attacker.flood_and_read(messages), 2)


async def publishes(target: Target) -> None:
    """Publications, as fast as they are accepted."""
    message = _commands(200, "publish", lambda index: {"channel": "open:3", "data": index})
    await _as_user(target, lambda attacker: attacker.flood_and_read(message), 2)


async def histories(target: Target) -> None:
    """Requests for the whole history of a channel with large publications."""

    async def send(attacker: Socket) -> None:
        for number in range(100):
            data = {"channel": "open:4", "data": "x" * 4000}
            await attacker.send_commands({"id": 2 + number, "publish": data})
        await attacker.flood_and_read(_commands(50, "history", lambda _: {"channel": "open:4", "limit": -1}))

    await _as_user(target, send, 2)


async def pongs(target: Target) -> None:
    """Endless answers to pings that were not sent."""
    message = frame("\n".join(["{}"] * 5000))
    await _as_user(target, lambda attacker: attacker.flood_and_read(message), 4)


async def reconnects(target: Target) -> None:
    """Connections that subscribe and end at once, one after the other."""

    async def attack() -> None:
        async with open_websocket(
            target, token=connection_token(f"{USER}-{random.randrange(1000)}")
        ) as attacker:
            await attacker.send_commands({"id": 2, "subscribe": {"channel": "open:5"}})
            await attacker.reader.read(1)

    await again_and_again(attack, 20)


async def line_breaks_in_messages(target: Target) -> None:
    """Messages of empty lines."""
    await _as_user(target, lambda attacker: attacker.flood_and_read(frame("\n" * 500_000)), 4)
