"""Serving the application with uvicorn: one port for HTTP, SSE and our own WebSocket protocol.

Leaving is ours: uvicorn's signal handling and sse-starlette's global exit flag are not used, so that two
servers in one process do not touch each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from tocsin_server.config.options import ServerOptions
from tocsin_server.node.node import Node
from tocsin_server.serving.http_limits import HttpProtocol
from tocsin_server.serving.websocket_upgrade import WebSocketProtocol

GRACE_SECONDS = 10
"""How long open requests may take to end once the server stops. Then they are dropped."""

FORCED_SECONDS = 1
"""How long what was dropped may take to notice, and the application to end."""

ACCEPTED_TOGETHER = 8
"""Connections that one turn of the loop accepts, which libuv does once a turn for each listening socket.

So a socket listens as often as that: the clients of a node that died come all at once, and a loop that has
much to do turns a few hundred times a second. More would have those wait that are connected already.
"""

BACKLOG = 4096
"""What may wait for that. Past it the system drops attempts, which come again a second later, then three."""

TICK_SECONDS = 0.1
"""How soon a second signal is noticed, which cannot wake the loop."""


COLLECT_AFTER = 10_000
"""Objects, by which those alive have grown, before garbage is looked for."""


class CannotListen(Exception):
    """The server's address cannot be had; the message is a sentence that says why."""


class Server(uvicorn.Server):
    """One listening server. The first signal stops it, a second one at once.

    `on_ready(url)` is called when it listens.
    """

    def __init__(
        self, app: Starlette, options: ServerOptions, on_ready: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=options.host,
                port=options.port,
                http=HttpProtocol,
                ws=WebSocketProtocol,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
            )
        )
        self._node: Node = app.state.node
        self._drain_seconds = options.drain_seconds
        self._node.on_drain_requested = self._leave
        self._on_ready = on_ready
        self._is_hurried = False
        self.handles_signals = True

    @property
    def url(self) -> str:
        """The address it listens on; only once it is started."""
        return url_of(self.servers[0].sockets[0])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the node, listen, say so. Raises EngineError if the node cannot reach its engine."""
        await self._node.prepare()
        copies = [sock.dup() for sock in sockets or () for _ in range(ACCEPTED_TOGETHER - 1)]
        await super().startup([*sockets, *copies] if sockets else None)
        self._node.address = self.url.partition("://")[2]
        if self.started and self._on_ready is not None:
            self._on_ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: take no new connections, send every client elsewhere, then wait for what is under way."""
        for server in self.servers:
            server.close()
        await self._node.drain(self._drain_seconds, lambda: self._is_hurried)
        dropping = asyncio.create_task(self._drop_what_stays())
        try:
            await super().shutdown(sockets)
        finally:
            dropping.cancel()
        if self.force_exit:  # uvicorn would let the loop cancel the application, and log that as a failure
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), FORCED_SECONDS)

    async def _drop_what_stays(self) -> None:
        """Drop connections that stay too long, or at once if asked again.

        uvicorn would cancel their requests, and log that as a failure; this way they end as if the client
        had gone. Only what does not even notice that is left to it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GRACE_SECONDS
        while not self._is_hurried and loop.time() < deadline:  # noqa: ASYNC110 - a signal sets it
            await asyncio.sleep(TICK_SECONDS)
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None) or getattr(connection, "_transport", None)
            if transport is not None:
                transport.abort()
        await asyncio.sleep(FORCED_SECONDS)
        self.force_exit = True

    def _leave(self) -> None:
        """Stop because the API said so."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        """Stop, or stop at once if asked again."""
        self._is_hurried = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen to SIGINT and SIGTERM while serving.

        uvicorn's own would raise them again after a clean end.
        """
        if not self.handles_signals:
            yield
            return
        previous = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)


def url_of(listening: socket.socket) -> str:
    """The address of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(options: ServerOptions) -> list[socket.socket]:
    """Take the address, which may be several (localhost is), before anything is started. Raises CannotListen.

    uvicorn would do it once the application runs, and leave the process where it fails.
    """
    taken: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, *_, address in sorted(set(found)):
            taken.append(socket.create_server(address[:2], family=family))
            # What is accepted inherits it. asyncio's own loop would not set it, and small writes would wait.
            taken[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        for one in taken:
            one.close()
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise CannotListen(f"Cannot listen on {options.host}:{options.port}: {reason}.") from error
    return taken


@asynccontextmanager
async def serving(app: Starlette, options: ServerOptions) -> AsyncIterator[Server]:
    """Serve inside the running loop, without touching signals; stops on leaving. Raises CannotListen."""
    sockets = listen(options)
    listening = asyncio.Event()
    server = Server(app, options, on_ready=lambda _url: listening.set())
    server.handles_signals = False
    task = asyncio.create_task(server.serve(sockets))
    waiting = asyncio.create_task(listening.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            raise RuntimeError("the server did not start")
        yield server
    finally:
        waiting.cancel()
        server.should_exit = True
        await task


def collect_less() -> None:
    """Have a process that does nothing but serve look for circular garbage less often.

    Hundreds of calls under way are thousands of objects that live on, each of which every look meets again:
    with Python's 700 that is a tenth of a batch's cost. What was imported is never looked at again.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def work(
    app: Starlette,
    options: ServerOptions,
    sockets: list[socket.socket],
    parent: int,
    on_ready: Callable[[], None],
) -> None:
    """Serve as one of several workers on sockets they share, until a signal comes or `parent` is gone.

    Blocks.

    `parent` is a descriptor that becomes readable then. Raises EngineError if the node cannot reach its
    engine.
    """

    def is_ready(_url: str) -> None:
        asyncio.get_running_loop().add_reader(parent, leave)
        on_ready()

    def leave() -> None:
        asyncio.get_running_loop().remove_reader(parent)
        server.handle_exit(signal.SIGTERM, None)

    server = Server(app, options, is_ready)
    collect_less()
    server.run(sockets)


def serve(app: Starlette, options: ServerOptions, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until a signal comes. Blocks. Raises CannotListen."""
    sockets = listen(options)
    collect_less()
    Server(app, options, on_ready).run(sockets)
