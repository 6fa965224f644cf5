"""An HTTP connection of uvicorn with time limits: on heads, bodies, idle connections and stalled clients.

Until its first request, and between two of them, a connection counts as half open. One timer serves the
limits of head, body and idle time.

The mutable state is that of `HttpConnection`. It and `HttpProtocol`, which parses the requests, change it.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tocsin_server.access import ADMIN
from tocsin_server.serving.address_limits import CONNECT_RATE_LIMIT, address_key, excess_limit
from tocsin_server.serving.direct_calls import DirectCycle
from tocsin_server.serving.http_flow import BodyWriter, Flow
from tocsin_server.serving.lazy_timer import LazyTimer

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from tocsin_server.node.node import Node
    from tocsin_server.serving.accepted_connection import AcceptedConnection
    from tocsin_server.serving.first_request import FirstRequest

STALL_SECONDS = 30.0
"""How long a client may read nothing while uvicorn's buffer for it (64 KiB) is full."""

BODY_SECONDS = 30.0
"""How long a body may take, besides what its bytes allow."""

BODY_BYTES_PER_SECOND = 16_384
"""So many bytes of a body allow another second. A slower body is dropped."""

NEVER = math.inf
"""The deadline of a time limit that does not run."""


class HttpConnection(HttpToolsProtocol):
    """One HTTP connection, dropped if its client stalls.

    A request's head may take as long as a connect command: `stale_timeout`. The time begins with the
    connection, or with the first byte of a later request. The lifespan state has the node under "node".
    """

    __slots__ = (
        *("_address", "_address_key", "_body_bytes", "_body_since", "_body_until", "_body_writer"),
        *("_head_bytes", "_head_until", "_heads", "_idle_until", "_is_head", "_is_head_complete"),
        *("_is_limited", "_is_message_complete", "_node", "_running", "_stall_timer", "_timer"),
        *("accepted", "head_until"),
    )
    # CPython keeps up to 30 attributes of an object where it finds them fast. uvicorn has 28 of its own.

    flow: Flow  # uvicorn makes its own first
    cycle: RequestResponseCycle | DirectCycle  # type: ignore[assignment]

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self._node: Node = app_state["node"]
        self._is_limited = app_state.get("address") != ADMIN
        self._timer = LazyTimer(self.loop, self._check_time)
        self.accepted: AcceptedConnection | FirstRequest | None = None
        """What the connection was before: with its TLS handshake, its proxy's header, or its first bytes."""
        self.head_until = 0.0
        """When the time of the first request's head is over, if it has begun before, by the loop's clock."""
        self._address = self._address_key = ""
        self._body_writer: BodyWriter
        self._running: RequestResponseCycle | DirectCycle | None = None
        """The request that is being answered."""
        self._is_head_complete = False
        self._is_message_complete = True
        self._body_bytes = 0
        self._body_since = 0.0
        self._head_bytes = 0
        self._heads = 0
        """How many heads were waited for."""
        self._is_head = False
        """Whether a head is waited for, with a time limit."""
        self._head_until = self._body_until = NEVER
        self._idle_until = NEVER
        """When an idle connection ends. It counts while no request has begun."""
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request. A proxy may have said who the client is."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.discard_after_last_response)
        self._body_writer = BodyWriter(transport)
        if (source := self.app_state.get("source")) is not None:
            self.client = (source.address, source.port)
            self.scheme = "https" if source.is_tls else self.scheme
        self._address = self.client[0] if self.client else ""
        self._start_head()
        self._wait_for_rest()
        was_accepted = self.accepted is not None
        if self.accepted is not None:
            self.accepted.leave()
            self.accepted = None
        if self._is_limited:
            self._count_in(was_accepted=was_accepted)

    def discard_after_last_response(self) -> None:
        """Discard what has arrived behind the last request."""

    def _count_in(self, *, was_accepted: bool) -> None:
        """Count the connection as half open, unless it is refused before anything is read."""
        node = self._node
        self._address_key = address_key(node, self._address)
        if not was_accepted and not node.admission.accepts(self._address_key, time.monotonic()):
            node.limit_reached(CONNECT_RATE_LIMIT, address=self._address_key)
            self.app_state["server"].refused.drop(self.transport)
        elif limit := excess_limit(node, self.connections):
            self.drop_half_open(limit)
        else:
            node.half_open.add(self, self._address_key)

    def drop_half_open(self, limit: str) -> None:
        """Drop the connection because of a limit. No response can be written before its request is read."""
        self._node.limit_reached(limit, address=self._address_key)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all time limits."""
        self._body_writer.is_paused = True
        self._timer.stop()
        self._stop_stall_timer()
        self._node.half_open.remove(self)
        super().connection_lost(exc)

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

    @property
    def awaits_request(self) -> bool:
        """Whether this is a new connection without a request, or the head of one has begun and not ended."""
        return self._is_head

    def _drop(self, reason: str) -> None:
        self._node.log_refusal("http_connection_dropped", reason=reason, address=self._address)
        self.transport.abort()

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
            return NEVER
        idle_until = self._idle_until if self._idle_until > now else NEVER
        return min(self._head_until, self._body_until, idle_until)

    @property
    def _is_idle(self) -> bool:
        """Whether there has been a request, and none has begun since. Line breaks begin none."""
        return self._is_message_complete and not self._is_head and self._running is None

    def _wait_for_rest(self) -> None:
        """Start the time limit of a head or of a body of which some bytes have not arrived yet."""
        if not self._is_message_complete and self._is_head_complete and self._body_until is NEVER:
            self._body_since = time.monotonic()
            self._body_until = self.loop.time() + BODY_SECONDS
            self._timer.watch(self._body_until)
        elif self._is_head and self._head_until is NEVER:
            seconds = self._node.settings.client.stale_timeout
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

    def _start_idling(self) -> None:
        self._idle_until = self.loop.time() + self.timeout_keep_alive
        self._timer.watch(self._idle_until)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stop_body(self) -> None:
        self._body_until = NEVER

    def _start_head(self) -> None:
        if not self._is_head:
            self._is_head = True
            self._heads += 1

    def _stop_head(self) -> None:
        self._is_head = False
        self._head_until = NEVER
        self._head_bytes = 0
