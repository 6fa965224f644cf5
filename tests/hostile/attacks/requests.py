"""Attacks with HTTP requests, whole or not, by clients without a key or token."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import AsyncExitStack
from functools import partial

from tests.hostile.attacks.attacker import Target, again_and_again, open_socket, request
from tests.support.raw_connection import HANDSHAKE

CROWD = 300
"""Connections of one attacker that do little each."""


async def idle_sockets(target: Target) -> None:
    """Two thousand connections that send nothing."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.discard()

    await again_and_again(attack, 2000)


async def slow_handshakes(target: Target) -> None:
    """Two thousand handshakes of one byte a second."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            for byte in HANDSHAKE:
                await attacker.send(bytes([byte]))
                await asyncio.sleep(1)

    await again_and_again(attack, 2000)


async def line_breaks(target: Target) -> None:
    """Connections that send an empty line now and then, and never a request."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            while not attacker.reader.at_eof():
                await attacker.send(b"\r\n")
                await asyncio.sleep(0.5)

    await again_and_again(attack, CROWD)


async def half_bodies(target: Target) -> None:
    """Requests whose bodies never come to their end, to paths that read them and to paths that do not."""
    paths = ["/api/publish", "/emulation", "/health/live", "/events", "/connection/websocket", "/nothing"]

    async def attack_path(path: str) -> None:
        async with open_socket(target) as attacker:
            await attacker.send(request(path, method="POST", body=b"{", Content_Length="1000"))
            await attacker.discard()

    async with asyncio.TaskGroup() as tasks:
        for path in paths:
            tasks.create_task(again_and_again(partial(attack_path, path), CROWD // len(paths)))


async def endless_heads(target: Target) -> None:
    """Requests with endless headers."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            await attacker.flood(b"X-Header: value\r\n" * 1000)

    await again_and_again(attack, 4)


async def long_addresses(target: Target) -> None:
    """Requests with addresses of 60 KB, and of endless length."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.send(request("/events?channel=" + "a" * 60_000))
            await attacker.send(b"GET /")
            await attacker.flood(b"a" * 65_536)

    await again_and_again(attack, 4)


async def pipelined_requests(target: Target) -> None:
    """Endless requests behind an event stream, none of which can be answered."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.send(request("/events?channel=open:1"))
            await attacker.flood(request("/health/live") * 1000)

    await again_and_again(attack, 4)


async def unread_responses(target: Target) -> None:
    """Endless requests whose responses are not read."""

    async def attack() -> None:
        async with open_socket(target, receive_buffer=4096) as attacker:
            await attacker.flood(request("/health/live") * 1000)

    await again_and_again(attack, 4)


async def departing_event_streams(target: Target) -> None:
    """Hundreds of event streams that open together and are lost together."""

    async def attack() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(CROWD):
                attacker = await stack.enter_async_context(open_socket(target))
                await attacker.send(request("/events?channel=open:1"))
            await asyncio.sleep(0.2)

    await again_and_again(attack)


async def scrapers(target: Target) -> None:
    """Twenty clients that request the metrics page as fast as it is answered."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.flood_and_read(request("/metrics"))

    await again_and_again(attack, 20)


async def refused_requests(target: Target) -> None:
    """Requests that are refused: no key, foreign origins, unknown paths, wrong parameters."""
    refused = b"".join(
        (
            request("/api/publish", method="POST", body=b"{}"),
            request("/events?channel=closed:1"),
            request("/events"),
            request("/nothing"),
            request("/api/publish", method="PUT"),
        )
    )

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.flood_and_read(refused)

    await again_and_again(attack, 4)


async def guessed_sessions(target: Target) -> None:
    """Large commands for sessions that do not exist, on nodes that do not exist."""
    body = json.dumps({"session": "guessed", "node": str(uuid.uuid4()), "data": "x" * 100_000}).encode()

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.flood_and_read(request("/emulation", method="POST", body=body))

    await again_and_again(attack, 4)


async def foreign_origins(target: Target) -> None:
    """WebSocket handshakes from a page of a foreign origin."""

    async def attack() -> None:
        async with open_socket(target) as attacker:
            await attacker.send(HANDSHAKE[:-2] + b"Origin: https://foreign.example\r\n\r\n")
            await attacker.discard()

    await again_and_again(attack, 20)
