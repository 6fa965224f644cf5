"""A session over a bare connection: its handshake, its commands and their replies."""

from typing import Any

from tests.support.raw_connection import RawConnection, commands

CONNECT = {"id": 1, "connect": {}}


async def read_messages(connection: RawConnection, count: int) -> list[Any]:
    """The next messages, without waiting for a message after them."""
    messages = []
    async for message in connection.messages():
        messages.append(message)
        if len(messages) == count:
            break
    return messages


async def connect(connection: RawConnection, *more: Any) -> list[Any]:
    """Upgrade, send a connect command and more; the replies to all of them."""
    await connection.upgrade()
    await connection.send(commands(CONNECT, *more))
    return await read_messages(connection, 1 + len(more))
