"""uvicorn's HTTP protocol with limits that it lacks, on everything that a client sends or does not send.

    head --complete--> body --complete--> response --complete--> idle --first byte--> head
    |<-- half open ----------------->|                           |<-- half open

Each phase has a time limit and a size. What has arrived is parsed by turns (`node/turns.py`), a few requests
at once. While a response is being made, nothing further is parsed, and nothing is read beyond what one read
brought. Behind the last request of a connection a few bytes are discarded, so that its end is noticed.

The mutable state is that of `HttpProtocol`. Its own methods change it; asyncio, uvicorn and the node call
them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tocsin_server.access import ADMIN
from tocsin_server.api.http import ApiResponse
from tocsin_server.eager_future import EagerFuture
from tocsin_server.serving.address_limits import CONNECT_RATE_LIMIT, address_key, excess_limit
from tocsin_server.serving.direct_calls import BODY_LIMIT_BYTES, DirectCycle
from tocsin_server.serving.http_flow import BodyWriter, CloseDelimited, Flow
from tocsin_server.serving.lazy_timer import LazyTimer
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.send_queue import BODY_WRITER
from tocsin_server.transports.websocket.handshake import HEAD_LIMIT_BYTES
from tocsin_server.transports.websocket.opening import OpeningRequest

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from tocsin_server.access import DirectApi
    from tocsin_server.node.node import Node
    from tocsin_server.serving.accepted_connection import AcceptedConnection
    from tocsin_server.serving.first_request import FirstRequest

HEADER_LIMIT = 500
"""How many headers a request may have. A head of 64 KiB has room for 13,000, which take 10 ms."""

HEADER_PUNCTUATION_BYTES = len(b": \r\n")
"""What a header has beside its name and value."""

STALL_SECONDS = 30.0
"""How long a client may read nothing while uvicorn's buffer for it (64 KiB) is full."""

BODY_SECONDS = 30.0
"""How long a body may take, besides what its bytes allow."""

BODY_BYTES_PER_SECOND = 16_384
"""So many bytes of a body allow another second. A slower body is dropped."""

PIECE_BYTES = 512
"""How much is parsed at once, other than a body whose length is known: at most 28 complete requests."""

PIECES_PER_TURN = 8
"""How many pieces are parsed in one turn of the event loop: some 0.5 ms if they are chunks of one byte."""

DISCARDED_BYTES = 65_536
"""How much may arrive behind the last request. Reading more without end would take all time of the node."""

CHUNK_OVERHEAD = 8
"""How many bytes besides its content each byte of a chunked body may have, apart from HEAD_LIMIT_BYTES.

A chunk of one byte has 5. Sizes, extensions and trailers are all of them.
"""

HEAD_TOO_LARGE = f"The head of the request has more than {HEAD_LIMIT_BYTES} bytes."
TOO_MANY_HEADERS = f"The request has more than {HEADER_LIMIT} headers."
CHUNKS_TOO_LARGE = "The chunked body of the request has too many bytes that are no content."
CHUNKED_UPGRADE = "A request with an Upgrade has no chunked body."
INVALID_REQUEST = "The request is not valid HTTP."


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, dropped if its client stalls.

    A request's head may take as long as a connect command: `stale_timeout`. The time begins with the
    connection, or with the first byte of a later request. The lifespan state has the node under "node".
    """

    flow: Flow  # uvicorn makes its own first
    accepted: AcceptedConnection | FirstRequest | None = None
    """What the connection was before: with its TLS handshake, the header of its proxy, or its first bytes."""
    head_until = 0.0
    """When the time of the first request's head is over, if it has begun before, in seconds of the loop."""
    _body_writer: BodyWriter
    _unread = b""
    _address_key = ""
    cycle: RequestResponseCycle | DirectCycle  # type: ignore[assignment]
    _running: RequestResponseCycle | DirectCycle | None = None
    _direct: DirectCycle | None = None
    """The request without ASGI whose body is not complete."""
    _is_head_complete = False
    _is_message_complete = True
    _is_waiting_turn = False
    _has_upgraded = False
    _is_body_unparsed = False
    _refusal: tuple[HTTPStatus, str] | None = None
    _head_bytes = 0
    _body_bytes = 0
    _body_left = 0
    _body_since = 0.0
    _chunk_bytes = 0
    _discarded_bytes = 0
    _is_chunked = False
    _heads = 0
    """How many heads were waited for."""
    _is_head = False
    """Whether a head is waited for, with a time limit."""
    _head_until = math.inf
    _body_until = math.inf
    _idle_until = math.inf
    """When an idle connection ends. It counts while no request has begun."""
    _stall_timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        direct_api: DirectApi | None = None,
    ) -> None:
        """With `direct_api`, calls of the API need no ASGI application."""
        super().__init__(config, server_state, app_state)
        self._direct_api = direct_api
        self._timer = LazyTimer(self.loop, self._check_time)

    # ------------------------------------------------------------------------------------------------ asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request. A proxy may have said who the client is."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.discard_after_last_response)
        self._body_writer = BodyWriter(transport)
        if (source := self.app_state.get("source")) is not None:
            self.client = (source.address, source.port)
            self.scheme = "https" if source.is_tls else self.scheme
        self._start_head()
        self._wait_for_rest()
        was_accepted = self.accepted is not None
        if self.accepted is not None:
            self.accepted.leave()
            self.accepted = None
        if self.app_state.get("address") != ADMIN:
            self._count_in(was_accepted=was_accepted)

    def _count_in(self, *, was_accepted: bool) -> None:
        """Count the connection as half open, unless it is refused before anything is read."""
        node: Node = self.app_state["node"]
        self._address_key = address_key(node, self.client[0] if self.client else "")
        if not was_accepted and not node.admission.accepts(self._address_key, time.monotonic()):
            node.limit_reached(CONNECT_RATE_LIMIT, address=self._address_key)
            self.app_state["server"].refused.drop(self.transport)
        elif limit := excess_limit(node, self.connections):
            self.drop_half_open(limit)
        else:
            node.half_open.add(self, self._address_key)

    def drop_half_open(self, limit: str) -> None:
        """Drop the connection because of a limit. No response can be written before its request is read."""
        self.app_state["node"].limit_reached(limit, address=self._address_key)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all time limits, and tell every request that its client is gone; uvicorn tells the last."""
        self._body_writer.is_paused = True
        self._timer.stop()
        self._stop_stall_timer()
        self.app_state["node"].half_open.remove(self)
        self._unread = b""
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._release_cycles()

    def data_received(self, data: bytes) -> None:
        """Parse what may be parsed in this turn, and keep the rest."""
        if self._has_upgraded:
            return
        if self._is_last_response:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > DISCARDED_BYTES:
                self._drop("data_after_last_request")
            return
        if self._unread:  # over TLS bytes arrive although reading is paused
            self._unread += data
            return
        self._parse_pieces(data)

    def pause_writing(self) -> None:
        """The buffer is full: start the time limit for reading."""
        super().pause_writing()
        self._body_writer.is_paused = True
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._drop, "stalled")

    def resume_writing(self) -> None:
        """The buffer has room again: stop the time limit for reading."""
        self._stop_stall_timer()
        self._body_writer.is_paused = False
        super().resume_writing()

    # ------------------------------------------------------------------------------------------------ parsing

    @property
    def _is_responding(self) -> bool:
        return self._running is not None and not self._running.response_complete

    @property
    def _must_wait(self) -> bool:
        """Whether what follows belongs to a later request than the one that is being answered."""
        if not self._is_responding:
            return False
        is_of_later_request = not self._is_head_complete or self.cycle is not self._running
        return self._is_message_complete or is_of_later_request

    @property
    def _is_last_response(self) -> bool:
        """Whether the connection ends with the response that is being made."""
        return self._must_wait and not (self._running is None or self._running.keep_alive)

    def discard_after_last_response(self) -> None:
        """Discard what has arrived behind the last request, so that the end of the connection is read."""
        if self._running is not None and self._is_last_response:
            self._end_after(self._running)

    def _parse_pieces(self, data: bytes) -> None:
        start = pieces = 0
        while start < len(data) and pieces < PIECES_PER_TURN and not self._must_wait:
            piece = data[start : start + (self._body_left or PIECE_BYTES)]
            start += len(piece)
            pieces += 1
            if not self._parse(piece):
                return
        self._unread = data[start:] if start < len(data) and not self._is_last_response else b""
        self.flow.hold(bool(self._unread))
        if self._unread and not self._must_wait:
            self._take_turn()
        if not self.transport.is_closing():
            self._wait_for_rest()

    def _take_turn(self) -> None:
        if not self._is_waiting_turn:
            self._is_waiting_turn = True
            self.app_state["node"].reading_turns.add(self._parse_on)

    def _parse_on(self) -> None:
        """Parse the next pieces of what has arrived, in a turn of this connection."""
        self._is_waiting_turn = False
        if self._unread and not self.transport.is_closing():
            data, self._unread = self._unread, b""
            self._parse_pieces(data)

    def _parse(self, piece: bytes) -> bool:
        """Parse one piece; False if the connection is closed or has become a WebSocket."""
        body_bytes, heads = self._body_bytes, self._heads
        try:
            self._feed(piece)
        except httptools.HttpParserError:
            self._refusal = self._refusal or (HTTPStatus.BAD_REQUEST, INVALID_REQUEST)
        if self._has_upgraded:
            return False
        if self._is_head and self._heads == heads:  # all of it belongs to this head
            self._head_bytes += len(piece)
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HEAD_TOO_LARGE)
        elif self._is_chunked and not self._is_message_complete:
            self._chunk_bytes += len(piece) - (self._body_bytes - body_bytes)
            if self._chunk_bytes > HEAD_LIMIT_BYTES + CHUNK_OVERHEAD * self._body_bytes:
                self._refusal = (HTTPStatus.BAD_REQUEST, CHUNKS_TOO_LARGE)
        if self._refusal is not None:
            self._refuse(*self._refusal)
        return self._refusal is None

    def _feed(self, piece: bytes) -> None:
        """Feed the parser. It stops after an Upgrade, and goes on where that is not to WebSocket.

        It also takes no body of such a request, which Java's client and curl make to offer HTTP/2.
        """
        while piece:
            if self._is_body_unparsed:
                piece = self._take_unparsed_body(piece)
                continue
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self._upgrade()
                    return
                piece = piece[upgrade.args[0] or len(piece) :]
            else:
                return

    def _take_unparsed_body(self, piece: bytes) -> bytes:
        rest = piece[self._body_left :]
        self.on_body(piece[: self._body_left])
        if not self._body_left:
            self._is_body_unparsed = False
            self.on_message_complete()
        return rest

    def _get_upgrade(self) -> bytes | None:
        """Read all headers of a name together, as `FirstRequest` does. uvicorn would read the last one."""
        asks_for_websocket = OpeningRequest(b"GET", b"", self.headers).asks_for_websocket
        return b"websocket" if asks_for_websocket else None

    def _upgrade(self) -> None:
        if self._refusal is not None:  # because of its head
            return
        if self._is_responding:  # a handshake behind another request: its response would be mixed with that
            self._refusal = (HTTPStatus.BAD_REQUEST, INVALID_REQUEST)
            return
        self._has_upgraded = True
        self._timer.stop()
        self.app_state["node"].half_open.remove(self)
        self._unread = b""
        self.flow.hold(False)
        self.handle_websocket_upgrade()
        self._release_cycles()

    def _release_cycles(self) -> None:
        """Release what refers to this object, which is then freed without the garbage collector."""
        self.parser = None  # type: ignore[assignment]  # as uvicorn does when a connection is lost
        self.flow = None  # type: ignore[assignment]
        self.cycle = self._running = self._direct = None  # type: ignore[assignment]
        self.scope = None  # type: ignore[assignment]  # its extensions do

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answer with a status and close. Behind a request that is being answered, only close after that."""
        log_refusal(self.app_state["node"], "http", status, reason, self._address)
        if self.transport.is_closing():
            return
        running = self._running
        if running is not None and not running.response_complete:
            if self._must_wait:
                self._end_after(running)
                return
            running.disconnected = True  # it is the body of this request
            running.message_event.set()
            if running.response_started:
                self.transport.close()
                return
        self._stop_head()
        self._stop_body()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        self.transport.write(head.encode("ascii"))
        self.transport.close()

    def _end_after(self, running: RequestResponseCycle | DirectCycle) -> None:
        """End the connection with a response, and discard what has arrived behind its request."""
        running.keep_alive = False
        self.pipeline.clear()
        self.cycle, self._is_message_complete = running, True
        self._stop_head()
        self._stop_body()
        self._unread = b""
        self.flow.hold(False)

    # ------------------------------------------------------------------------------------ the parser's events

    def on_message_begin(self) -> None:
        """A request begins: start its time limit, unless that of the first request runs already."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_head_complete = self._is_message_complete = self._is_chunked = False
        self._body_bytes = self._body_left = self._chunk_bytes = 0
        self._start_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, if it is no trailer, which nothing here reads."""
        if self._is_head_complete:
            return
        if len(self.headers) < HEADER_LIMIT:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
        elif self._refusal is None:
            self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_MANY_HEADERS)

    def on_headers_complete(self) -> None:
        """The head is complete: stop its time limit, and start that of the body."""
        self._is_head_complete = True
        is_large = self._head_bytes > HEAD_LIMIT_BYTES - 2 * PIECE_BYTES  # without the first and last piece
        if is_large and self._exact_head_bytes > HEAD_LIMIT_BYTES:
            self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HEAD_TOO_LARGE)
        self._stop_head()
        fields = dict(self.headers)
        self._body_left = int(fields.get(b"content-length", 0))  # checked by the parser
        if b"transfer-encoding" in fields:
            self._is_chunked = True
            if self.parser.should_upgrade():
                self._refusal = (HTTPStatus.BAD_REQUEST, CHUNKED_UPGRADE)
        if self._refusal is not None or self.transport.is_closing():  # behind the last response
            return
        if not self._begin_direct():
            self._begin_cycle()

    @property
    def _exact_head_bytes(self) -> int:
        lines = sum(len(name) + len(value) + HEADER_PUNCTUATION_BYTES for name, value in self.headers)
        return len(self.parser.get_method()) + len(self.url) + len(b"  HTTP/1.1\r\n\r\n") + lines

    def _begin_cycle(self) -> None:
        """Begin a request of the ASGI application."""
        previous, url, headers = self.cycle, self.url, self.headers
        expects_continue = self.expect_100_continue
        super().on_message_begin()  # makes the scope
        self.url, self.expect_100_continue = url, expects_continue
        self.headers += headers
        super().on_headers_complete()
        if self.cycle is previous:
            return
        cycle = cast("RequestResponseCycle", self.cycle)
        if self.scope["http_version"] == "1.0":
            cycle.send = CloseDelimited(cycle).send  # type: ignore[method-assign]
        else:
            extensions = {BODY_WRITER: self._body_writer}
            self.scope["extensions"] = cast("dict[str, dict[object, object]]", extensions)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._body_bytes += len(body)
        self._body_left = max(0, self._body_left - len(body))
        if self._direct is not None:
            self._direct.body += body
        elif self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete: stop the time limit of its body."""
        if self._body_left:  # the parser takes none after an Upgrade
            self._is_body_unparsed = True
            return
        self._is_message_complete = True
        self._body_left = 0
        self._stop_body()
        if self._refusal is not None:
            return
        if self._direct is not None:
            self._answer(self._direct)
            return
        if self._is_responding:
            self.app_state["node"].half_open.remove(self)
        else:  # it was answered before its body was complete, and is half open since then
            self._start_idling()
        super().on_message_complete()

    # ---------------------------------------------------------------------------------------------- responses

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """A response is complete: parse what has arrived behind its request, or be idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._start_idling()
            if self.app_state.get("address") != ADMIN:
                self.app_state["node"].half_open.add(self, self._address_key)
        if self._unread and not self._must_wait:
            self._take_turn()

    # ----------------------------------------------------------------------------------- calls without ASGI

    def _begin_direct(self) -> bool:
        """Begin a request without ASGI, if it is one that may be answered so, at once."""
        if self._direct_api is None or self._is_responding or self._is_chunked or self.expect_100_continue:
            return False
        if self._body_left > BODY_LIMIT_BYTES or self._body_writer.is_paused:
            return False
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
            return False
        path, _, query = self.url.partition(b"?")
        answer = self._direct_api.open(path, query, self.headers, self._address)
        if answer is None:
            return False
        self.cycle = self._running = self._direct = DirectCycle(answer, keep_alive=parser.should_keep_alive())
        return True

    def _answer(self, cycle: DirectCycle) -> None:
        """Answer a request without ASGI, as its body is complete, or its head is refused."""
        self._direct = None
        outcome = cycle.outcome()
        if isinstance(outcome, ApiResponse):
            self._respond(cycle, outcome)
            return
        self.app_state["node"].half_open.remove(self)
        if isinstance(outcome, EagerFuture):
            self.tasks.add(cycle)  # type: ignore[arg-type]
            outcome.add_done_callback(partial(self._respond_now, cycle))
            return
        task = self.loop.create_task(self._respond_later(cycle, outcome))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _respond_now(self, cycle: DirectCycle, outcome: EagerFuture[ApiResponse]) -> None:
        """Respond in the call that ended the future. A server that stops has waited for it as for a task."""
        self.tasks.discard(cycle)
        if not outcome.cancelled():
            self._respond(cycle, cycle.result_of(outcome))

    async def _respond_later(self, cycle: DirectCycle, outcome: Coroutine[Any, Any, ApiResponse]) -> None:
        self._respond(cycle, await cycle.finish(outcome))

    def _respond(self, cycle: DirectCycle, response: ApiResponse) -> None:
        """Write the response to a request without ASGI, whose client may be gone."""
        cycle.response_complete = True
        if cycle.disconnected:
            return
        lines = [response.head, *(b"%b: %b\r\n" % header for header in self.server_state.default_headers)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join([*lines, b"\r\n", response.body]))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    # -------------------------------------------------------------------------------------------- time limits

    def _check_time(self) -> float:
        """End the connection if a time limit has passed. Returns when the next one may."""
        now = self.loop.time()
        if self._head_until <= now:
            self._drop("head_timeout")
        elif self._body_until <= now:
            self._check_body()
        elif self._is_idle and self._idle_until <= now:
            self.timeout_keep_alive_handler()
        if self.transport.is_closing():
            return math.inf
        idle_until = self._idle_until if self._idle_until > now else math.inf
        return min(self._head_until, self._body_until, idle_until)

    @property
    def _is_idle(self) -> bool:
        """Whether there has been a request, and none has begun since. Line breaks begin none."""
        return self._is_message_complete and not (self._is_head or self._is_responding)

    def _wait_for_rest(self) -> None:
        """Start the time limit of a head or of a body of which some bytes have not arrived yet."""
        if not self._is_message_complete and self._is_head_complete and self._body_until is math.inf:
            self._body_since = time.monotonic()
            self._body_until = self.loop.time() + BODY_SECONDS
            self._timer.watch(self._body_until)
            if self._direct is not None and self._direct.is_refused:
                self._answer(self._direct)
        elif self._is_head and self._head_until is math.inf:
            seconds = self.app_state["node"].settings.client.stale_timeout
            self._head_until, self.head_until = self.head_until or self.loop.time() + seconds, 0.0
            self._timer.watch(self._head_until)

    def _check_body(self) -> None:
        """Drop a client whose body is too slow. While the application does not read it, no time counts."""
        now = time.monotonic()
        if self.flow.read_paused:
            self._body_since = now
        left = self._body_since + BODY_SECONDS + self._body_bytes / BODY_BYTES_PER_SECOND - now
        if left <= 0:
            self._drop("body_timeout")
        else:
            self._body_until = self.loop.time() + left

    def _drop(self, reason: str) -> None:
        node: Node = self.app_state["node"]
        node.log_refusal("http_connection_dropped", reason=reason, address=self._address)
        self.transport.abort()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _start_idling(self) -> None:
        self._idle_until = self.loop.time() + self.timeout_keep_alive
        self._timer.watch(self._idle_until)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stop_body(self) -> None:
        self._body_until = math.inf

    def _start_head(self) -> None:
        if not self._is_head:
            self._is_head = True
            self._heads += 1

    def _stop_head(self) -> None:
        self._is_head = False
        self._head_until = math.inf
        self._head_bytes = 0
