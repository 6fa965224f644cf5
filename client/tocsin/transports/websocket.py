"""One WebSocket connection, from opening to close; it reports to a session by events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from tocsin.errors import BadProtocol, PermissionDenied, TocsinError, Unauthorized
from tocsin.session.events import Received, SessionEvent, TransportLost, TransportOpened, TransportRefused

from .http import PASSING_STATUSES

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 5.0  # protocol §8: wait this long for the server's close frame
MESSAGE_BYTES = 64 * 1024 * 1024  # a reply with 300 recovered publications of 64 KiB has 19 MiB


class WebSocketTransport:
    """A connection that is opened once. It calls ``on_event`` with each event, until ``close`` is called.

    The mutable state is the queue of outgoing messages, ``_is_closing`` and the opening task.
    """

    def __init__(
        self,
        url: str,
        on_event: Callable[[SessionEvent], None],
        headers: Mapping[str, str],
        ssl: SSLContext | None,
    ) -> None:
        self._url = url
        self._on_event = on_event
        self._headers = headers
        self._options: dict[str, Any] = {"ssl": ssl} if ssl is not None else {}
        self._outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_closing = False
        self._opening: asyncio.Task[Any] | None = None

    def send(self, text: str) -> None:
        """Queue a message. It is dropped if the connection is lost before it is sent."""
        self._outgoing.put_nowait(text)

    def close(self) -> None:
        """Send what is queued, then close. No further event is reported."""
        self._is_closing = True
        self._outgoing.put_nowait(None)
        if self._opening is not None:
            self._opening.cancel()

    async def run(self) -> None:
        """Open the connection, send and receive until it is closed. Cancelling drops it at once."""
        if self._is_closing:
            return
        self._opening = asyncio.current_task()
        try:
            # no compression (protocol §18.3), no pings: the session checks the protocol's own pings
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
                await self._exchange(socket)
        except InvalidStatus as error:
            self._report(_event_for_status(error))
        except InvalidURI as error:
            self._report(TransportRefused(BadProtocol(str(error))))
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            self._report(TransportLost(0, f"cannot connect: {error or type(error).__name__}"))

    async def _exchange(self, socket: ClientConnection) -> None:
        self._opening = None
        self._report(TransportOpened())
        writer = asyncio.create_task(self._write(socket))
        try:
            async for frame in socket:
                self._report(Received(frame))
        except ConnectionClosed:
            pass  # its code is read below, as after a clean close
        finally:
            writer.cancel()
            await asyncio.wait([writer])
        self._report(TransportLost(socket.close_code or 0, socket.close_reason or "connection closed"))

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while (text := await self._outgoing.get()) is not None:
                await socket.send(text)
            await socket.close()
        except ConnectionClosed:
            pass  # the reader reports it

    def _report(self, event: SessionEvent) -> None:
        if not self._is_closing:
            self._on_event(event)


def _event_for_status(error: InvalidStatus) -> TransportLost | TransportRefused:
    """A 4xx response to the handshake is final. A proxy's 502 or a busy server's 503 is not."""
    status = error.response.status_code
    if status in PASSING_STATUSES or not 400 <= status < 500:
        return TransportLost(0, f"cannot connect: HTTP {status}")
    refusal: TocsinError = BadProtocol(f"no WebSocket endpoint at this address: HTTP {status}")
    if status == 401:
        refusal = Unauthorized("the server refused the connection: HTTP 401")
    elif status == 403:
        reason = "HTTP 403: an origin or a path that it does not serve"
        refusal = PermissionDenied(103, f"the server refused the connection: {reason}")
    return TransportRefused(refusal)
