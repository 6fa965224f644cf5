"""Attacks by clients that ask for much and read little."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import httpx

from tests.hostile.attacks.attacker import Target, again_and_again, open_socket, open_websocket, request
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY
from tests.support.tcp import HOST
from tests.support.timing import STARTED
from tests.support.tokens import connection_token

CHANNELS = [f"open:large-{number}" for number in range(20)]
SMALL_BUFFER = 4096


@contextlib.asynccontextmanager
async def _api(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://{HOST}:{port}/api",
        headers={"X-API-Key": API_KEY},
        timeout=STARTED,
        trust_env=False,
        verify=NO_TLS,
    ) as api:
        yield api


async def fill_histories(port: int) -> None:
    """Publish a history of 400 KB into each of `CHANNELS`, as a busy back end does."""
    async with _api(port) as api:
        for channel in CHANNELS:
            publish = {"publish": {"channel": channel, "data": "x" * 4000}}
            for _ in range(10):
                await api.post("/batch", json={"commands": [publish] * 10})


async def _epochs(target: Target) -> list[str]:
    """The epochs of the channels, which each of their subscribers knows."""
    async with _api(target.port) as api:
        answers = [await api.post("/history", json={"channel": channel, "limit": 0}) for channel in CHANNELS]
    return [answer.json()["result"]["epoch"] for answer in answers]


async def unread_recoveries(target: Target) -> None:
    """Event streams that recover twenty histories and read nothing."""
    positions = ",".join(f"0@{epoch}" for epoch in await _epochs(target))
    query = urlencode([*(("channel", channel) for channel in CHANNELS), ("last_event_id", positions)])

    async def attack() -> None:
        async with open_socket(target, SMALL_BUFFER) as attacker:
            await attacker.send(request(f"/events?{query}"))
            await attacker.hold_unread()

    await again_and_again(attack, 60)


async def unread_subscribes(target: Target) -> None:
    """WebSocket clients that recover twenty histories and read nothing."""
    epochs = await _epochs(target)
    subscribes = [
        {"id": 2 + index, "subscribe": {"channel": channel, "recover": True, "offset": 0, "epoch": epoch}}
        for index, (channel, epoch) in enumerate(zip(CHANNELS, epochs, strict=True))
    ]

    async def attack() -> None:
        token = connection_token("reader")
        async with open_websocket(target, token=token, receive_buffer=SMALL_BUFFER) as attacker:
            await attacker.send_commands(*subscribes)
            await attacker.hold_unread()

    await again_and_again(attack, 60)


async def unread_histories(target: Target) -> None:
    """WebSocket clients that request histories and read nothing."""
    requests = [
        {"id": 2 + index, "history": {"channel": channel, "limit": -1}}
        for index, channel in enumerate(CHANNELS * 5)
    ]

    async def attack() -> None:
        token = connection_token("reader")
        async with open_websocket(target, token=token, receive_buffer=SMALL_BUFFER) as attacker:
            await attacker.send_commands(*requests)
            await attacker.hold_unread()

    await again_and_again(attack, 20)


async def unread_pings(target: Target) -> None:
    """Clients that asked for native ping frames, are subscribed to a busy channel, and read nothing."""

    async def attack() -> None:
        async with open_websocket(
            target,
            token=connection_token("reader"),
            query="?cf_ws_frame_ping_pong=true",
            receive_buffer=SMALL_BUFFER,
        ) as attacker:
            await attacker.send_commands({"id": 2, "subscribe": {"channel": "honest:0"}})
            await attacker.hold_unread()

    await again_and_again(attack, 50)


async def byte_by_byte(target: Target) -> None:
    """Clients that read one byte a second of a history."""

    async def attack() -> None:
        token = connection_token("reader")
        async with open_websocket(target, token=token, receive_buffer=SMALL_BUFFER) as attacker:
            await attacker.send_commands({"id": 2, "history": {"channel": CHANNELS[0], "limit": -1}})
            await attacker.read_slowly()

    await again_and_again(attack, 50)
