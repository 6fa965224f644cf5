"""Attacks by clients that ask for much and read little."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from tests.hostile.attacks.attacker import Target, again_and_again, open_socket, open_websocket, request
from tests.support.configs import API_KEY
from tests.support.tokens import connection_token

CHANNELS = [f"open:large-{number}" for number in range(20)]
SMALL_BUFFER = 4096


async def _fill(target: Target) -> None:
    """Publish a history of 400 KB into each channel, as a back end that publishes much does."""
    async with open_socket(target) as back_end:
        for channel in CHANNELS:
            publish = {"publish": {"channel": channel, "data": "x" * 4000}}
            body = json.dumps({"commands": [publish] * 100}).encode()
            await back_end.send(request("/api/batch", method="POST", body=body, X_API_Key=API_KEY))
            await back_end.reader.readuntil(b"\r\n\r\n")
        back_end.writer.write_eof()
        await back_end.discard()


def _position() -> str:
    """The position before the first publication, in an epoch that no channel has."""
    return ",".join("0@" for _ in CHANNELS)


async def unread_recoveries(target: Target) -> None:
    """Event streams that recover twenty histories and read nothing."""
    await _fill(target)
    query = urlencode([*(("channel", channel) for channel in CHANNELS), ("lastEventId", _position())])

    async def attack() -> None:
        async with open_socket(target, SMALL_BUFFER) as attacker:
            await attacker.send(request(f"/events?{query}"))
            await attacker.hold_unread()

    await again_and_again(attack, 60)


async def unread_subscribes(target: Target) -> None:
    """WebSocket clients that recover twenty histories and read nothing."""
    await _fill(target)
    subscribes = [
        {"id": 2 + index, "subscribe": {"channel": channel, "recover": True, "offset": 0, "epoch": ""}}
        for index, channel in enumerate(CHANNELS)
    ]

    async def attack() -> None:
        token = connection_token("reader")
        async with open_websocket(target, token=token, receive_buffer=SMALL_BUFFER) as attacker:
            await attacker.send_commands(*subscribes)
            await attacker.hold_unread()

    await again_and_again(attack, 60)


async def unread_histories(target: Target) -> None:
    """WebSocket clients that request histories and read nothing."""
    await _fill(target)
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
    await _fill(target)

    async def attack() -> None:
        token = connection_token("reader")
        async with open_websocket(target, token=token, receive_buffer=SMALL_BUFFER) as attacker:
            await attacker.send_commands({"id": 2, "history": {"channel": CHANNELS[0], "limit": -1}})
            await attacker.read_slowly()

    await again_and_again(attack, 50)
