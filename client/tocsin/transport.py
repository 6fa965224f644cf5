"""One WebSocket, from opening to close, told as events of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from .effects import Event, Lost, Opened, Received, Refused
from .errors import BadProtocol, PermissionDenied, TocsinError, Unauthorized

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 5.0  # protocol §8: wait this long for the other side's close frame
MESSAGE_BYTES = 64 * 1024 * 1024  # a reply with 300 recovered publications of 64 KiB is 19 MiB
_PASSING_STATUSES = (408, 425, 429)


class Transport:
    """A connection that is opened once. ``feed`` hears what happens, until ``hang_up`` is called."""

    def __init__(
        self, url: str, feed: Callable[[Event], None], headers: Mapping[str, str], ssl: SSLContext | None
    ) -> None:
        self._url = url
        self._feed = feed
        self._headers = headers
        self._options: dict[str, Any] = {"ssl": ssl} if ssl is not None else {}
        self._outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_heard = True
        self._opening: asyncio.Task[Any] | None = None

    def send(self, text: str) -> None:
        """Send after what was sent before; goes nowhere once the connection is lost."""
        self._outgoing.put_nowait(text)

    def hang_up(self) -> None:
        """Send what is waiting, close, and say nothing more."""
        self._is_heard = False
        self._outgoing.put_nowait(None)
        if self._opening is not None:
            self._opening.cancel()

    async def run(self) -> None:
        """Open, converse, close. Cancel it to drop the connection at once."""
        if not self._is_heard:
            return
        self._opening = asyncio.current_task()
        try:
            # no compression (protocol §18.3); liveness is the session's, it knows the protocol's own pings
            async with connect(
                self._url,
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=MESSAGE_BYTES,
                **self._options,
            ) as socket:
                await self._converse(socket)
        except InvalidStatus as error:
            self._tell(_refusal(error))
        except InvalidURI as error:
            self._tell(Refused(BadProtocol(str(error))))
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            self._tell(Lost(0, f"cannot connect: {error or type(error).__name__}"))

    async def _converse(self, socket: ClientConnection) -> None:
        self._opening = None
        self._tell(Opened())
        writer = asyncio.create_task(self._write(socket))
        try:
            async for frame in socket:
                self._tell(Received(frame))
        except ConnectionClosed:
            pass  # its code is read below, as after a clean close
        finally:
            writer.cancel()
            await asyncio.wait([writer])
        self._tell(Lost(socket.close_code or 0, socket.close_reason or "connection closed"))

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while (text := await self._outgoing.get()) is not None:
                await socket.send(text)
            await socket.close()
        except ConnectionClosed:
            pass  # the reader tells it

    def _tell(self, event: Event) -> None:
        if self._is_heard:
            self._feed(event)


def _refusal(error: InvalidStatus) -> Lost | Refused:
    """A 4xx answer to the handshake is final; a proxy's 502 or a busy server's 503 is not."""
    status = error.response.status_code
    if status in _PASSING_STATUSES or not 400 <= status < 500:
        return Lost(0, f"cannot connect: HTTP {status}")
    refusal: TocsinError = BadProtocol(f"no WebSocket endpoint here: HTTP {status}")
    if status == 401:
        refusal = Unauthorized("the server refused the connection: HTTP 401")
    elif status == 403:
        why = "HTTP 403: an origin or a path that it does not serve"
        refusal = PermissionDenied(103, f"the server refused the connection: {why}")
    return Refused(refusal)
