"""The response that is a stream of one client: sse-starlette's, except for how a stream ends.

sse-starlette ends its streams when a process-wide flag is set, which it polls in a task per stream and a
watcher per thread. Under Tocsin's own server a stream ends when its node closes the connection, so that two
servers in one process do not affect each other. Mounted in another application, the node does not learn
that the server stops; there the library's flag ends the stream, as it ends the application's own event
streams.
"""

from __future__ import annotations

import asyncio

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.node.connection import Connections
from tocsin_server.transports.send_queue import BODY_WRITER
from tocsin_server.transports.streams.streamed import StreamedConnection

EVENT_STREAM = "text/event-stream"


class StreamResponse(EventSourceResponse):
    """The stream of an open connection, which is lost when the response ends.

    Two tasks: the request's own writes, another waits for the client to disconnect.
    """

    def __init__(
        self, connections: Connections, connection: StreamedConnection, media_type: str = EVENT_STREAM
    ) -> None:
        super().__init__(connection.send_queue, media_type=media_type, ping=0)
        del self.headers["connection"]  # the library's keep-alive
        self._connections = connections
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the send_queue ends or the client disconnects. HEAD gets the headers alone."""
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        if scope["http_version"] == "1.1":
            # The end of the stream is then visible to every proxy, and no drained node keeps the connection
            self.headers["Connection"] = "close"
            self._connection.send_queue.set_body_writer(scope.get("extensions", {}).get(BODY_WRITER))
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = [tasks.create_task(self._listen_for_disconnect(receive))]
                is_mounted = scope.get("state", {}).get("node") is not self._connections
                if is_mounted:
                    watching.append(tasks.create_task(self._disconnect_when_host_stops()))
                await self._connection.send_queue.run_writer(self._stream_response(send))
                for task in watching:
                    task.cancel()
        finally:
            self._connection.lose()

    async def _listen_for_disconnect(self, receive: Receive) -> None:
        """End the stream at once when the client disconnects. Overrides the library's."""
        while (await receive())["type"] != "http.disconnect":
            pass  # the request's body, which is ignored
        self._connection.drop()

    async def _disconnect_when_host_stops(self) -> None:
        await self._listen_for_exit_signal()
        self._connections.handle_event(self._connection, events.ServerDisconnect(errors.SHUTDOWN))

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send without a time limit: the send_queue bounds the queue. Overrides the library's."""
        await send(message)
