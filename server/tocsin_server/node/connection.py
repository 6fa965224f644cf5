"""What a node uses of a transport, `Connection`, and what a transport uses of its node, `Connections`.

transport --new_session, attach, receive, handle_event--> Connections (the node)
transport <--send, write, close, pause_reading-- Connection (one per client)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from tocsin_server.config.loading import Settings
from tocsin_server.core.admission import Admission, NotAdmitted
from tocsin_server.core.channel import Framing
from tocsin_server.core.events import Event, Timestamp
from tocsin_server.core.half_open import HalfOpen
from tocsin_server.core.rate_limit import RateLimit
from tocsin_server.core.session import Session
from tocsin_server.errors import Disconnect
from tocsin_server.node.client_request import ClientRequest, KeptHeaders
from tocsin_server.node.turns import TurnQueue
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.messages import ServerMessage

if TYPE_CHECKING:
    from tocsin_server.node.emulated_sessions import EmulatedSessions

BEHIND_BYTES = 16_384
"""A client is behind while more than this is queued, although its socket was offered it."""

CAUGHT_UP_BYTES = 4096
"""It is behind until at most this is queued."""

FRAME_BURST_SECONDS = 5
"""A client may send the frames of so many seconds at once, such as the fragments of a large message."""


class Connection(Protocol):
    """A session with its transport. All methods are synchronous, and only `send` may raise."""

    session: Session
    address: str
    """The client's IP address, as far as trusted proxies tell it, "unix" or "unknown"."""
    request: ClientRequest | None
    """The request with which the client connected; None unless hooks want it."""

    @property
    def transport_name(self) -> str:
        """Such as `websocket` or `http_stream`, for logs and metrics (docs/metrics.md)."""

    @property
    def codec(self) -> Codec:
        """How the client's commands and the messages to it are encoded."""

    @property
    def framing(self) -> Framing:
        """How messages are packed that many subscribers share."""

    @property
    def write(self) -> Callable[[Any], object]:
        """Write what `framing` packed, after everything written before."""

    @property
    def queued_bytes(self) -> int:
        """How many bytes are queued for the client."""

    @property
    def is_behind(self) -> bool:
        """Whether more than BEHIND_BYTES are queued, or the transport takes no page of a recovery yet."""

    @property
    def taken_bytes(self) -> int:
        """A count that grows by every byte that the socket takes while the client is behind."""

    @property
    def sending_bytes(self) -> int:
        """The size of the message being sent, if it counts as taken only once all of it is; else 0."""

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write messages for this client alone, after everything written before.

        Raises PayloadNotJson, and writes nothing then, where the codec cannot encode one of them.
        """

    def close(self, disconnect: Disconnect) -> None:
        """Write what is queued, then close with this code."""

    def drop(self) -> None:
        """Drop the connection with what is queued for it, at once. `close` came before."""

    def pause_reading(self, is_busy: bool) -> None:
        """Stop reading while commands of the client wait; read again once none does."""


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """What a transport needs of the configuration."""

    message_bytes: int
    """Size of one received message; a larger one closes the connection (1009)."""
    queue_bytes: int
    """How much may be queued for one client; past it the client is slow (3008)."""
    channels: int
    """How many channels one connection may have."""
    allowed_origins: tuple[str, ...]
    """Patterns of the origins whose pages may connect."""
    frame_rate: RateLimit
    """How many pings, pongs and fragments a client may send; more close the connection (3013)."""
    message_seconds: float
    """How long one received message may take; a slower one closes the connection (1008)."""
    compresses: bool
    """Clients that can compress their WebSocket messages do, and get compressed ones."""
    checks_host: bool
    """Clients need no token, so the Host of a request must not be another site's name."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that a configuration sets."""
        client = settings.client
        return cls(
            message_bytes=client.message_limit_bytes,
            queue_bytes=client.queue_limit_bytes,
            channels=client.channel_limit,
            allowed_origins=settings.server.allowed_origins,
            frame_rate=RateLimit(client.frame_rate, client.frame_rate * FRAME_BURST_SECONDS),
            message_seconds=client.message_timeout,
            compresses=client.compression,
            checks_host=client.insecure,
        )


class Connections(Protocol):
    """A node, as its transports see it. All methods but one are synchronous, and none raises."""

    @property
    def name(self) -> str:
        """The node's readable name."""

    @property
    def limits(self) -> TransportLimits:
        """What the configuration allows a connection."""

    @property
    def settings(self) -> Settings:
        """The configuration."""

    @property
    def kept_headers(self) -> KeptHeaders | None:
        """What connections keep of their requests; None: nothing, because no hook wants it."""

    @property
    def admission(self) -> Admission:
        """Counts connections by address."""

    @property
    def half_open(self) -> HalfOpen:
        """Connections that have sent no complete request, or no connect command."""

    @property
    def emulated_sessions(self) -> EmulatedSessions:
        """The connections whose clients send their commands in requests of their own."""

    @property
    def uid(self) -> str:
        """The node's unique id."""

    def admit(self, key: str) -> NotAdmitted | None:
        """Count a connection of an address in, or return why it is refused.

        `key` is what `admission.key_of` returns. `admission.leave` must follow when the connection has ended.
        """

    @property
    def unready_reason(self) -> str:
        """Why the node is not ready, as a sentence; empty if it is ready."""

    @property
    def reading_turns(self) -> TurnQueue[Callable[[], None]]:
        """Where a transport that has received much at once adds what reads on."""

    def now(self) -> Timestamp:
        """The node's clock."""

    def new_session(
        self,
        *,
        sends_pings: bool = True,
        wants_pong: bool = True,
        announces_pings: bool = True,
        is_unidirectional: bool = False,
        is_executed: bool = True,
    ) -> Session:
        """A session for a connection that has just been made; or one whose effects are only looked at."""

    def attach(self, connection: Connection) -> None:
        """Count a connection in. `handle_event` with `ConnectionLost` must follow when the transport ends."""

    def receive(self, connection: Connection, data: bytes) -> None:
        """Decode one received message with the connection's codec, and give its commands to the session."""

    def handle_event(self, connection: Connection, event: Event) -> None:
        """Give an event to the connection's session, and execute the effects."""

    def limit_reached(self, limit: str, **fields: object) -> None:
        """Count and log that a limit refused something. `limit` is its key in the configuration."""

    def client_is_behind(self, connection: Connection) -> None:
        """More than BEHIND_BYTES are queued. `client_caught_up` must follow, also when the transport ends."""

    def client_caught_up(self, connection: Connection) -> None:
        """At most CAUGHT_UP_BYTES are queued."""

    async def wait_for_keys(self, tokens: Iterable[str]) -> None:
        """Wait while keys of these tokens are being fetched, for a few seconds at most."""

    def log_refusal(self, event: str, **fields: Any) -> None:
        """Write a line of the refusal log, which is sampled: an attack leaves few lines."""

    def count_sent(self, size: int) -> None:
        """Count bytes that a transport sends to one client. Fan-out counts its own."""
