"""The streaming itself: sse-starlette's response, with an end that is the peer's to decide.

sse-starlette ends its streams when a process-global flag is set, which it looks for in a task per stream and
a watcher per thread. A stream of Tocsin's own server ends when its node says so, and two servers in one
process do not touch each other. Mounted in somebody else's server, where nobody tells the node that the
server stops, the library's signal is heeded as in any other event stream there.
"""

from __future__ import annotations

import asyncio

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.node.node import Node
from tocsin_server.transports.sse.connection import SseConnection


class EventStreamResponse(EventSourceResponse):
    """The stream of what waits for an opened peer, which is lost when it is through.

    Two tasks: the request's own writes, another waits for the client to go.
    """

    def __init__(self, node: Node, peer: SseConnection) -> None:
        super().__init__(peer.outbox, ping=0)
        self._node = node
        self._peer = peer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the peer's outbox ends or the client goes. Answers HEAD with the headers alone."""
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = [tasks.create_task(self._listen_for_disconnect(receive))]
                if scope.get("state", {}).get("node") is not self._node:
                    watching.append(tasks.create_task(self._leave_with_the_host()))
                await self._peer.outbox.keep_limit(self._stream_response(send))
                for task in watching:
                    task.cancel()
        finally:
            self._node.handle_event(self._peer, events.ConnectionLost())

    async def _listen_for_disconnect(self, receive: Receive) -> None:
        """End at once when the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass  # a body, which a GET should not have
        self._peer.outbox.drop()
        self._peer.outbox.end(within_seconds=0)

    async def _leave_with_the_host(self) -> None:
        await self._listen_for_exit_signal()
        self._node.handle_event(self._peer, events.ServerDisconnect(errors.SHUTDOWN))

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send without a time limit for each: what may wait is bounded in bytes."""
        await send(message)
