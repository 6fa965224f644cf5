"""Attacks with WebSocket frames, by clients that need no token."""

from __future__ import annotations

import asyncio

from tests.hostile.attacks.attacker import Target, again_and_again, open_websocket
from tests.support.raw_connection import Op, frame

START_OF_MESSAGE = frame(b"", Op.TEXT, fin=False)


async def empty_fragments(target: Target) -> None:
    """Four sockets send a message of empty fragments that never ends."""

    async def attack() -> None:
        async with open_websocket(target) as attacker:
            await attacker.send(START_OF_MESSAGE)
            await attacker.flood(frame(b"", Op.CONTINUATION, fin=False) * 20_000)

    await again_and_again(attack, 4)


async def one_byte_fragments(target: Target) -> None:
    """A message of fragments of one byte."""

    async def attack() -> None:
        async with open_websocket(target) as attacker:
            await attacker.send(START_OF_MESSAGE)
            await attacker.flood(frame(b" ", Op.CONTINUATION, fin=False) * 20_000)

    await again_and_again(attack, 2)


async def ping_frames(target: Target) -> None:
    """Endless ping frames, whose answers are read by one socket and not by the other."""
    pings = frame(b"", Op.PING) * 20_000

    async def read() -> None:
        async with open_websocket(target) as attacker:
            await attacker.flood_and_read(pings)

    async def leave_unread() -> None:
        async with open_websocket(target, receive_buffer=4096) as attacker:
            await attacker.flood(pings)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(again_and_again(read))
        tasks.create_task(again_and_again(leave_unread))


async def pong_frames(target: Target) -> None:
    """Endless pong frames, which need no answer."""

    async def attack() -> None:
        async with open_websocket(target, token="") as attacker:
            await attacker.flood_and_read(frame(b"", Op.PONG) * 20_000)

    await again_and_again(attack, 2)


async def half_frames(target: Target) -> None:
    """Two hundred connections that stop in the middle of a frame."""

    async def attack() -> None:
        async with open_websocket(target, token="") as attacker:
            await attacker.send(frame(b'{"id": 2, "unsubscribe": {}}')[:-8])
            await attacker.discard()

    await again_and_again(attack, 200)


async def compressed_frames(target: Target) -> None:
    """Frames that claim to be compressed, although compression was not agreed."""

    async def attack() -> None:
        async with open_websocket(target, token="") as attacker:
            await attacker.flood_and_read(frame(b"\x00" * 1000, reserved=4) * 100)

    await again_and_again(attack, 4)


async def giant_frames(target: Target) -> None:
    """Frames whose heads announce 4 EiB."""

    async def attack() -> None:
        async with open_websocket(target, token="") as attacker:
            await attacker.send(bytes([0x81, 0xFF]) + (2**62).to_bytes(8, "big") + b"\x01\x02\x03\x04")
            await attacker.flood_and_read(b"\x00" * 65_536)

    await again_and_again(attack, 4)


async def messages_up_to_the_limit(target: Target) -> None:
    """Messages of half a megabyte that are no commands."""
    message = frame(b'{"id": 2, "x": "' + b"\\u0000" * 80_000 + b'"}')

    async def attack() -> None:
        async with open_websocket(target, token="") as attacker:
            await attacker.flood_and_read(message)

    await again_and_again(attack, 4)
