"""The requests of an HTTP connection: parsed with limits on everything that a client sends.

    head --complete--> body --complete--> response --complete--> idle --first byte--> head
    |<-- half open ----------------->|                           |<-- half open

Each phase has a size, and a time limit (`http_connection.py`). What has arrived is parsed by turns
(`node/turns.py`), a few requests at once. While a response is being made, nothing further is parsed, and
nothing is read beyond what one read brought. Behind the last request of a connection a few bytes are
discarded, so that its end is noticed.

The mutable state is that of `HttpProtocol`. Its own methods change it; asyncio, uvicorn and the node call
them.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tocsin_server.api.http import ApiResponse, first_values
from tocsin_server.eager_future import EagerFuture
from tocsin_server.serving.direct_calls import BODY_LIMIT_BYTES, DirectCalls, DirectCycle
from tocsin_server.serving.http_connection import HttpConnection
from tocsin_server.serving.http_flow import CloseDelimited
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.send_queue import BODY_WRITER
from tocsin_server.transports.websocket.handshake import HEAD_LIMIT_BYTES
from tocsin_server.transports.websocket.opening import OpeningRequest

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.server import ServerState

HEADER_LIMIT = 500
"""How many headers a request may have. A head of 64 KiB has room for 13,000, which take 10 ms."""

HEADER_PUNCTUATION_BYTES = len(b": \r\n")
"""What a header has beside its name and value."""

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

SURELY_SMALL_BYTES = HEAD_LIMIT_BYTES - 2 * PIECE_BYTES
"""A head of which so much was counted is small enough: its first and last piece are not among it."""

HEAD_TOO_LARGE = f"The head of the request has more than {HEAD_LIMIT_BYTES} bytes."
TOO_MANY_HEADERS = f"The request has more than {HEADER_LIMIT} headers."
CHUNKS_TOO_LARGE = "The chunked body of the request has too many bytes that are no content."
CHUNKED_UPGRADE = "A request with an Upgrade has no chunked body."
INVALID_REQUEST = "The request is not valid HTTP."


class HttpProtocol(HttpConnection):
    """One HTTP connection: parses its requests, and has them answered in their order."""

    __slots__ = (
        *("_body_left", "_chunk_bytes", "_direct", "_direct_calls", "_discarded_bytes", "_has_upgraded"),
        *("_is_body_unparsed", "_is_chunked", "_is_waiting_turn", "_refusal", "_unread"),
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        direct_calls: DirectCalls | None = None,
    ) -> None:
        """With `direct_calls`, calls of the API need no ASGI application."""
        super().__init__(config, server_state, app_state)
        self._direct_calls = direct_calls
        self._unread = b""
        self._direct: DirectCycle | None = None
        """The request without ASGI whose body is not complete."""
        self._is_waiting_turn = self._has_upgraded = self._is_body_unparsed = self._is_chunked = False
        self._refusal: tuple[HTTPStatus, str] | None = None
        self._body_left = self._chunk_bytes = self._discarded_bytes = 0

    # ------------------------------------------------------------------------------------------------ asyncio

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that its client is gone; uvicorn tells the last."""
        self._unread = b""
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._release_cycles()

    def release_unopened(self) -> None:
        """Release what refers to this object, if it got no connection because a TLS handshake failed."""
        if self.scheme is None:  # it is set once there is a connection
            self._timer.stop()
            self._release_cycles()

    def data_received(self, data: bytes) -> None:
        """Parse what may be parsed in this turn, and keep the rest."""
        if self._has_upgraded:
            return
        if self._running is not None and self._is_last_response:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > DISCARDED_BYTES:
                self._drop("data_after_last_request")
            return
        if self._unread:  # over TLS bytes arrive although reading is paused
            self._unread += data
            return
        self._parse_pieces(data)

    # ------------------------------------------------------------------------------------------------ parsing

    @property
    def _must_wait(self) -> bool:
        """Whether what follows belongs to a later request than the one that is being answered."""
        if self._running is None:
            return False
        return self._is_message_complete or not self._is_head_complete or self.cycle is not self._running

    @property
    def _is_last_response(self) -> bool:
        """Whether the connection ends with the response that is being made."""
        return self._running is not None and not self._running.keep_alive and self._must_wait

    def discard_after_last_response(self) -> None:
        """Discard what has arrived behind the last request, so that the end of the connection is read."""
        if self._running is not None and self._is_last_response:
            self._end_after(self._running)

    def _parse_pieces(self, data: bytes) -> None:
        start = pieces = 0
        while start < len(data) and pieces < PIECES_PER_TURN:
            if self._running is not None and self._must_wait:
                break
            piece = data[start : start + (self._body_left or PIECE_BYTES)]
            start += len(piece)
            pieces += 1
            if not self._parse(piece):
                return
        if start < len(data) and not self._is_last_response:
            self._unread = data[start:]
            self.flow.hold(True)
            if not self._must_wait:
                self._take_turn()
        elif self.flow.is_held:
            self.flow.hold(False)
        if (self._is_head or not self._is_message_complete) and not self.transport.is_closing():
            self._wait_for_rest()
            if self._direct is not None and self._direct.is_refused:
                self._answer(self._direct)

    def _take_turn(self) -> None:
        if not self._is_waiting_turn:
            self._is_waiting_turn = True
            self._node.reading_turns.add(self._parse_on)

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
            elif len(self.headers or ()) > HEADER_LIMIT:
                self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_MANY_HEADERS)
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
        if self._running is not None:  # a handshake behind another request, which would mix their responses
            self._refusal = (HTTPStatus.BAD_REQUEST, INVALID_REQUEST)
            return
        self._has_upgraded = True
        self._timer.stop()
        self._node.half_open.remove(self)
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
        log_refusal(self._node, "http", status, reason, self._address)
        if self.transport.is_closing():
            return
        running = self._running
        if running is not None:
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
        if not self._is_head_complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete: stop its time limit, and begin the request."""
        self._is_head_complete = True
        if self._head_bytes > SURELY_SMALL_BYTES or len(self.headers) > HEADER_LIMIT:
            self._refusal = self._refusal or self._refusal_of_head
        self._stop_head()
        if self._refusal is not None:
            return
        fields = first_values(self.headers)
        self._body_left = int(fields.get(b"content-length", 0))  # checked by the parser
        if b"transfer-encoding" in fields:
            self._is_chunked = True
            if self.parser.should_upgrade():
                self._refusal = (HTTPStatus.BAD_REQUEST, CHUNKED_UPGRADE)
                return
        if self.transport.is_closing():  # behind the last response
            return
        if b"expect" in fields:
            expected = [value.lower() for name, value in self.headers if name == b"expect"]
            self.expect_100_continue = b"100-continue" in expected
        if not self._begin_direct(fields):
            self._begin_cycle()

    @property
    def _refusal_of_head(self) -> tuple[HTTPStatus, str] | None:
        if self._exact_head_bytes > HEAD_LIMIT_BYTES:
            return (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HEAD_TOO_LARGE)
        if len(self.headers) > HEADER_LIMIT:
            return (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_MANY_HEADERS)
        return None

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
        if self._body_left:
            self._body_left -= len(body)
        if self._direct is not None:
            self._direct.body.append(body)
        elif self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete: stop the time limit of its body."""
        if self._body_left:  # the parser takes none after an Upgrade
            self._is_body_unparsed = True
            return
        self._is_message_complete = True
        self._stop_body()
        if self._refusal is not None:
            return
        if self._direct is not None:
            self._answer(self._direct)
            return
        if self._running is not None:
            self._node.half_open.remove(self)
        else:  # it was answered before its body was complete, and is half open since then
            self._start_idling()
        super().on_message_complete()

    # ---------------------------------------------------------------------------------------------- responses

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """A response is complete: parse what has arrived behind its request, or be idle."""
        self._running = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._start_idling()
            if self._is_limited:
                self._node.half_open.add(self, self._address_key)
        if self._unread and not self._must_wait:
            self._take_turn()

    # ----------------------------------------------------------------------------------- calls without ASGI

    def _begin_direct(self, fields: Mapping[bytes, bytes]) -> bool:
        """Begin a request without ASGI, if it is one that may be answered so, at once."""
        if self._direct_calls is None or self._is_chunked or self.expect_100_continue:
            return False
        if self._running is not None or self._body_left > BODY_LIMIT_BYTES or self._body_writer.is_paused:
            return False
        parser = self.parser
        if parser.get_method() != b"POST" or parser.should_upgrade():
            return False
        keep_alive: bool = parser.should_keep_alive()
        # Without the header `Connection` only HTTP/1.1 keeps a connection. To make its version takes long.
        if (b"connection" in fields or not keep_alive) and parser.get_http_version() != "1.1":
            return False
        answer = self._direct_calls.api.open(self.url, self.headers, fields, self._address)
        if answer is None:
            return False
        self.cycle = self._running = self._direct = DirectCycle(answer, keep_alive=keep_alive)
        return True

    def _answer(self, cycle: DirectCycle) -> None:
        """Answer a request without ASGI, as its body is complete, or its head is refused."""
        self._direct = None
        outcome = cycle.outcome()
        if type(outcome) is ApiResponse:
            self._respond(cycle, outcome)
            return
        self._node.half_open.remove(self)
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
        if cycle.disconnected or self._direct_calls is None:
            return
        self.transport.write(self._direct_calls.bytes_of(response, keep_alive=cycle.keep_alive))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
