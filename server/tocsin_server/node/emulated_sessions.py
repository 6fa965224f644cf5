"""The emulated connections of a node: by which session ids their clients' requests find them.

An emulated connection has its messages in one HTTP response and its commands in requests of their own, which
may reach any node. The session id in such a request is all that proves that it comes from the client. It is
random, no log line has it, and no other node needs it: nodes name a session by the digest of its id.

The mutable state is that of `EmulatedSessions` and of its entries; only its methods change it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from tocsin_server import errors
from tocsin_server.core.events import Event, ServerDisconnect
from tocsin_server.engine.forwarding import Forwarding
from tocsin_server.node.connection import Connection

SESSION_ID_BYTES = 24
"""How many random bytes a session id has, so that it cannot be guessed."""

DIGEST_BYTES = 16

WAITING_LIMIT = "client.message_limit_bytes"
"""The limit of the bytes that may wait for a session. A WebSocket's client has to wait with them itself."""


class SessionAddress(NamedTuple):
    """What a client is told in the connect result, and repeats in each of its requests."""

    session: str
    node: str
    """The uid of the node that has the connection; its name may be that of several nodes."""


class _Entry:
    """A connection, and how many bytes it received since it last had no waiting command."""

    __slots__ = ("connection", "waiting_bytes")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.waiting_bytes = 0


def session_digest(session: str) -> bytes:
    """The digest of a session id."""
    return blake2b(session.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


class EmulatedSessions:
    """The emulated connections of the node `node`, each with the limit of `waiting_limit` waiting bytes.

    `forwarding` is the engine's, `receive` and `handle_event` the node's. `limit_reached` counts and logs.
    """

    def __init__(
        self,
        node: str,
        waiting_limit: int,
        forwarding: Forwarding,
        *,
        receive: Callable[[Connection, bytes], None],
        handle_event: Callable[[Connection, Event], None],
        limit_reached: Callable[..., None],
        random_id: Callable[[], str] = lambda: secrets.token_urlsafe(SESSION_ID_BYTES),
    ) -> None:
        self._node = node
        self._waiting_limit = waiting_limit
        self._forwarding = forwarding
        self._receive = receive
        self._handle_event = handle_event
        self._limit_reached = limit_reached
        self._random_id = random_id
        self._entries: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._entries)

    def new_address(self) -> SessionAddress:
        """Return an address for a connection that is about to be added."""
        return SessionAddress(self._random_id(), self._node)

    def add(self, session: str, connection: Connection) -> None:
        """Add a connection before its connect command is answered. `remove` must follow when it has ended."""
        self._entries[session_digest(session)] = _Entry(connection)

    def remove(self, session: str) -> None:
        """Remove a connection. Idempotent."""
        self._entries.pop(session_digest(session), None)

    def receive(self, digest: bytes, data: bytes) -> bool:
        """Hand the commands of one request to the session with this digest. False: there is none.

        Commands run in the order of the calls. While earlier ones wait, `waiting_limit` bytes may be added.
        More end the connection, as a client that sends too much (3013).
        """
        entry = self._entries.get(digest)
        if entry is None or entry.connection.session.is_closed:
            return False
        connection = entry.connection
        if not connection.session.has_waiting_commands:
            entry.waiting_bytes = 0
        entry.waiting_bytes += len(data)
        if entry.waiting_bytes > self._waiting_limit:
            self._limit_reached(WAITING_LIMIT, client=connection.session.client)
            self._handle_event(connection, ServerDisconnect(errors.RATE_LIMITED))
            return False
        self._receive(connection, data)
        return True

    async def forward(self, node: str, session: bytes, data: bytes) -> bool:
        """Hand commands to an emulated connection of another node. False: that node or session is gone.

        Raises EngineError.
        """
        return await self._forwarding.forward(node, session, data)
