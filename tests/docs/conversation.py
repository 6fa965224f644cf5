"""The conversations of docs/protocol.md: lines that a client sends and lines that it receives.

→ {…}      sent by the client; adjacent lines are one WebSocket message
← {…}      the next message from the server
← close 3501 bad request
⇒ publish {…}    a call of the HTTP API
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import groupby

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.docs.examples import agrees
from tests.support.api import NO_TLS
from tests.support.timing import SOON

_EPOCH = re.compile(r'"epoch":"([^"]+)"')


async def call_api(url: str, method: str, body: str) -> None:
    """Call a method of the HTTP API, which must succeed."""
    async with httpx.AsyncClient(trust_env=False, timeout=SOON, verify=NO_TLS) as http:
        response = await http.post(f"{url}/api/{method}", content=body, headers={"X-API-Key": "secret"})
    assert "result" in response.json(), response.text


class Conversation:
    """One connection, and the messages of it that were received and not compared yet."""

    def __init__(self, url: str, connection: ClientConnection, words: Mapping[str, str]) -> None:
        self._url = url
        self._connection = connection
        self._words = dict(words)
        self._received: list[str] = []

    async def play(self, text: str) -> None:
        """Play all lines; raises AssertionError at the first message that differs."""
        for mark, lines in groupby(text.strip().splitlines(), key=lambda line: line[:1]):
            said = [line[1:].strip() for line in lines]
            if mark == "→":
                await self.send(*said)
            elif mark == "⇒":
                for line in said:
                    await self._call(*line.split(" ", 1))
            else:
                for line in said:
                    await self._compare(line)

    async def send(self, *lines: str) -> None:
        """Send lines as one message."""
        await self._connection.send("\n".join(map(self._filled, lines)))

    def _filled(self, line: str) -> str:
        for word, value in self._words.items():
            line = line.replace(f'"{word}"', f'"{value}"')
        return line

    async def _call(self, method: str, body: str) -> None:
        await call_api(self._url, method, self._filled(body))

    async def _compare(self, shown: str) -> None:
        message = await self.next(is_ping_shown=shown == "{}")
        assert agrees(shown, message), f"shown:    {shown}\nreceived: {message}"
        if found := _EPOCH.search(message):
            self._words["EPOCH"] = found[1]

    async def next(self, *, is_ping_shown: bool = False) -> str:
        """The next message, or the close. A ping that the page does not show is answered."""
        while True:
            if not self._received:
                try:
                    async with asyncio.timeout(SOON):
                        self._received = str(await self._connection.recv()).split("\n")
                except websockets.ConnectionClosed:
                    return f"close {self._connection.close_code} {self._connection.close_reason}"
            message = self._received.pop(0)
            if message != "{}" or is_ping_shown:
                return message
            await self._connection.send("{}")


@asynccontextmanager
async def conversing(url: str, words: Mapping[str, str]) -> AsyncIterator[Conversation]:
    """A conversation on a new connection to the server at `url`.

    `words` are the values of the words in quotation marks that the page uses for them.
    """
    websocket_url = f"{url.replace('http://', 'ws://')}/connection/websocket"
    async with connect(websocket_url, proxy=None, compression=None, ping_interval=None) as connection:
        yield Conversation(url, connection, words)
