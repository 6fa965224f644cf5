"""The server process: uvicorn with one port for HTTP, SSE and the raw WebSocket transport.

uvicorn's signal handling and sse-starlette's global exit flag are not used, so that two servers in one
process stay independent.

    signal or API drain --> no new connections --> the node drains --> open requests end --> the process exits
    second signal       --> what is left is dropped at once

A connection that was accepted just before the stop has a moment for its first request.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from tocsin_server.access import ADMIN, PUBLIC
from tocsin_server.config.options import ServerOptions
from tocsin_server.config.values import is_passed
from tocsin_server.node.node import Node
from tocsin_server.serving.accepting import Acceptor, NotedConnections, Share
from tocsin_server.serving.certificate import ServerCertificate
from tocsin_server.serving.http_limits import HttpProtocol
from tocsin_server.serving.listening import (
    BACKLOG,
    Hosts,
    limit_unacknowledged,
    limit_unsent,
    listen,
    url_of,
)
from tocsin_server.serving.listening_address import ListeningAddress
from tocsin_server.serving.prefork import CHECK_SECONDS
from tocsin_server.serving.refused_connections import RefusedConnections
from tocsin_server.serving.registrations import Registrations
from tocsin_server.serving.starting import Protocols
from tocsin_server.serving.websocket_upgrade import WebSocketProtocol

GRACE_SECONDS = 10
"""How long open requests may take to end after the drain. After that their connections are dropped."""

FIRST_REQUEST_SECONDS = 1.0
"""How long a server that stops waits for requests that have not arrived whole.

Their clients had connected before: a request may be on its way, and they have no reason to send it again.
"""

FIRST_REQUEST_CHECK_SECONDS = 0.02
"""How often the server looks whether it waits for requests."""

FORCED_SECONDS = 1
"""How long requests may take to end once their connections are dropped, and then the application to stop."""

STARTUP_FAILURE = 3
"""The exit code when the application does not start, as uvicorn's."""

COLLECT_AFTER = 2000
"""How many new objects start a run of the garbage collector, which visits them all: about 1 ms."""


UNACKNOWLEDGED_SECONDS = 5.0
"""The least time after which a connection is dropped whose client acknowledges nothing.

A shorter `pong_timeout` would drop clients for one lost segment, which TCP sends again.
"""


class Server(uvicorn.Server):
    """One server, on its public address and on that of [admin], if there is one.

    The first SIGINT or SIGTERM stops it gracefully, the second one at once. SIGHUP reads the certificates
    again. `on_ready(url)` is called once it listens. The sockets of [admin] are given to the constructor, the
    public ones to `serve`. With `share`
    it is one of the workers that accept the connections of the public sockets together.
    """

    def __init__(
        self,
        app: Starlette,
        options: ServerOptions,
        on_ready: Callable[[str], None] | None = None,
        admin_sockets: Sequence[socket.socket] = (),
        share: Share | None = None,
    ) -> None:
        """Raises ValueError if a certificate cannot be used."""
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
                proxy_headers=False,  # uvicorn would trust every peer on this machine
                backlog=BACKLOG,
                timeout_keep_alive=options.keep_alive_timeout,  # type: ignore[arg-type]  # for call_later
            )
        )
        self._node: Node = app.state.node
        self._node.attach_server(self._request_exit)
        admin = self._node.settings.admin
        self.refused = RefusedConnections()
        self._share = share
        self._connections = NotedConnections()
        if share is not None:
            self.server_state.connections = self._connections
        self._public = ListeningAddress(self, PUBLIC, options)
        self._admin = ListeningAddress(self, ADMIN, admin)
        self._url = ""
        self._owns_sockets = not any(map(is_passed, options.hosts))
        self._protocols: Protocols
        self._accepting: list[Acceptor | Registrations] = []
        self._admin_sockets = list(admin_sockets)
        self._admin_servers: list[asyncio.Server] = []
        self._watching: list[asyncio.Task[None]] = []
        self._drain_seconds = options.drain_seconds
        self._on_ready = on_ready
        self._was_signalled = False
        self._second_signal = asyncio.Event()
        self.handles_signals = True

    @property
    def node(self) -> Node:
        """The node that is served."""
        return self._node

    @property
    def url(self) -> str:
        """The public address it listens on. Only valid after `startup`."""
        return self._url

    @property
    def admin_url(self) -> str:
        """The address of [admin] it listens on. Only valid after `startup`, if there is one."""
        return url_of(self._admin_servers[0].sockets[0], is_tls=self._admin.is_tls)

    @property
    def certificates(self) -> list[ServerCertificate]:
        """The certificates that are served."""
        return [one.certificate for one in (self._public, self._admin) if one.certificate is not None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the node, listen, report readiness. Raises EngineError if the engine cannot be reached.

        uvicorn's own method would serve the same on all sockets.
        """
        await self._node.prepare()
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        self.servers = []
        listening = sockets or listen(Hosts((self.config.host,), self.config.port))
        self._url = url_of(listening[0], is_tls=self._public.is_tls)
        for sock in listening:
            limit_unacknowledged(sock, max(UNACKNOWLEDGED_SECONDS, self._node.settings.client.pong_timeout))
            limit_unsent(sock)
        await self._accept(listening)
        for sock in self._admin_sockets:
            self._admin_servers.append(await self._admin.serve(sock))
        self._watching = [asyncio.create_task(one.watch()) for one in self.certificates]
        self.started = True
        self._node.set_address(self.url.partition("://")[2] or self.url)
        if self._on_ready is not None:
            self._on_ready(self.url)

    async def _accept(self, listening: Sequence[socket.socket]) -> None:
        """Accept connections of the public sockets: as one of several workers, or all of them."""
        self._protocols = self._public.protocols()
        if self._share is not None:
            acceptor = Acceptor(self._share, self._connections, self._protocols)
            acceptor.start(listening)
            self._accepting.append(acceptor)
            return
        for sock in listening:
            await self.accept(sock)

    async def accept(self, listening: socket.socket) -> Registrations:
        """Accept connections of a public socket, until it is closed or the server stops. After `startup`."""
        registrations = Registrations(listening, self._protocols)
        await registrations.start()
        self._accepting.append(registrations)
        return registrations

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, drain the node, then wait for open requests to end.

        The address of [admin] stays open while the node drains: there `/health/ready` says that it does.
        """
        for accepting in self._accepting:
            if self._owns_sockets and isinstance(accepting, Registrations):
                accepting.accept_waiting()
            accepting.close()
        await self._node.drain(self._drain_seconds, self._second_signal.is_set)
        for server in self._admin_servers:
            server.close()
        await self._wait_for_first_requests()
        for task in self._watching:
            task.cancel()
        dropping = asyncio.create_task(self._drop_open_connections())
        try:
            await super().shutdown(sockets)
        finally:
            dropping.cancel()
        if (
            self.force_exit
        ):  # otherwise the loop would cancel the application, and uvicorn log that as an error
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), FORCED_SECONDS)

    async def _wait_for_first_requests(self) -> None:
        """Wait until the head of each connection's first request has arrived, for a moment at most."""
        until = asyncio.get_running_loop().time() + FIRST_REQUEST_SECONDS
        while (
            self._awaits_requests
            and asyncio.get_running_loop().time() < until
            and not self._second_signal.is_set()
        ):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_REQUEST_CHECK_SECONDS):
                    await self._second_signal.wait()

    @property
    def _awaits_requests(self) -> bool:
        return any(one.starting for one in self._accepting) or any(
            getattr(connection, "awaits_request", False)  # uvicorn's own WebSockets do not
            for connection in self.server_state.connections
        )

    async def _drop_open_connections(self) -> None:
        """Drop connections that are still open after GRACE_SECONDS, or at the second signal.

        uvicorn would cancel their requests and log that as an error. A dropped connection ends its request as
        if the client had disconnected. uvicorn cancels only requests that do not end even then.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._second_signal.wait()
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None) or getattr(connection, "_transport", None)
            if transport is not None:
                transport.abort()
        await asyncio.sleep(FORCED_SECONDS)
        self.force_exit = True

    def _request_exit(self) -> None:
        """Stop gracefully, because a control command drains this node."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        """Stop gracefully at the first signal, at once at the second one. A drain by the API is no signal."""
        if self._was_signalled:
            self._second_signal.set()
            self._node.hurry()
        self._was_signalled = self.should_exit = True

    def reload_certificates(self) -> None:
        """Read the files of all certificates again."""
        for certificate in self.certificates:
            certificate.reload(is_forced=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and, if TLS is served, SIGHUP while serving, as callbacks of the loop.

        uvicorn's own method would raise them again after a graceful stop.
        """
        if not self.handles_signals:
            yield
            return
        loop = asyncio.get_running_loop()
        previous = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
        for sig in previous:
            loop.add_signal_handler(sig, self.handle_exit, sig, None)
        if self.certificates:
            previous[signal.SIGHUP] = signal.getsignal(signal.SIGHUP)
            loop.add_signal_handler(signal.SIGHUP, self.reload_certificates)
        try:
            yield
        finally:
            for sig, handler in previous.items():
                loop.remove_signal_handler(sig)
                signal.signal(sig, handler)


@asynccontextmanager
async def serving(app: Starlette, options: ServerOptions) -> AsyncIterator[Server]:
    """Serve inside the running loop, until the context ends. Signals stay untouched. Raises CannotListen."""
    sockets, admin_sockets = listen(options), listen(app.state.node.settings.admin)
    listening = asyncio.Event()
    server = Server(app, options, lambda _url: listening.set(), admin_sockets)
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
    """Run the garbage collector less often in a process that only serves.

    Hundreds of calls in flight are thousands of live objects, and each run of the collector visits them. With
    Python's default threshold of 700 that is a tenth of a batch's cost. Imported modules are never visited.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def work(
    app: Starlette,
    options: ServerOptions,
    sockets: list[socket.socket],
    admin_sockets: list[socket.socket],
    share: Share,
    parent: int,
    report: Callable[[], None],
) -> None:
    """Serve as one of several workers on common sockets, until a signal arrives or the parent dies. Blocks.

    `parent` is a file descriptor that becomes readable when the parent dies. `report` is called once the
    worker is ready, and then again and again as long as its event loop runs. Raises EngineError if the engine
    cannot be reached.
    """

    def is_ready(_url: str) -> None:
        asyncio.get_running_loop().add_reader(parent, stop)
        report_again()

    def report_again() -> None:
        report()
        asyncio.get_running_loop().call_later(CHECK_SECONDS, report_again)

    def stop() -> None:
        asyncio.get_running_loop().remove_reader(parent)
        server.handle_exit(signal.SIGTERM, None)

    server = Server(app, options, is_ready, admin_sockets, share)
    collect_less()
    server.run(sockets)


def serve(app: Starlette, options: ServerOptions, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until a signal arrives. Blocks.

    Raises CannotListen, ValueError if a certificate cannot be used, or EngineError if the engine cannot be
    reached.
    """
    sockets, admin_sockets = listen(options), listen(app.state.node.settings.admin)
    collect_less()
    Server(app, options, on_ready, admin_sockets).run(sockets)
