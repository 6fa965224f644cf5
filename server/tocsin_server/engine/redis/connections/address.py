"""An address: where a URL says that Redis is, and how a connection to it is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import connection as redis_py
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from tocsin_server.config.engine_url import parse_redis_url
from tocsin_server.engine.redis.connections.connection import FAILURES, Connection
from tocsin_server.engine.redis.connections.sentinels import Sentinels

CONNECT_SECONDS = 2.0
"""For one attempt, name look-up, TLS and authentication included."""

SENTINEL_SECONDS = CONNECT_SECONDS / 4
"""For each step of asking a Sentinel, so that there is time left to reach the master."""

CONTEXT_SECONDS = 60.0
"""How long a TLS context serves: to make one takes tens of milliseconds, and certificates are renewed."""


class TlsContexts:
    """Lets connections share a TLS context, which redis-py would make for each."""

    def __init__(self) -> None:
        self._context: redis_py.RedisSSLContext | None = None
        self._made_at = 0.0

    def lend(self, connection: redis_py.SSLConnection) -> None:
        """Give it the one there is, or keep its own, which it will make from its options."""
        now = time.monotonic()
        if self._context is None or now - self._made_at > CONTEXT_SECONDS:
            self._context, self._made_at = connection.ssl_context, now
        connection.ssl_context = self._context


@dataclass(frozen=True)
class Address:
    """One Redis, Sentinels that know who is the master, or some of a cluster. `name` holds no password."""

    name: str
    hosts: list[tuple[str, int]]
    options: dict[str, Any] = field(repr=False)
    is_tls: bool = False
    service: str = ""
    """The name that Sentinels know the master by; empty: `hosts` is that one Redis."""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    is_cluster: bool = False
    """Whether `hosts` are servers of a cluster, whose others they know."""
    contexts: TlsContexts = field(default_factory=TlsContexts, repr=False, compare=False)


class Dialler:
    """Makes connections, each to whatever is the master at that moment. `close` it in the end."""

    def __init__(self, address: Address, client_name: str) -> None:
        self.name = address.name
        common = {
            "protocol": 2,  # announcements then arrive as plain lists
            "socket_timeout": None,  # time limits belong to calls, not to reads
            "socket_connect_timeout": CONNECT_SECONDS,
            "client_name": client_name,
        }
        self._options = {**common, **address.options}
        self._is_tls = address.is_tls
        self._hosts = address.hosts
        self._contexts = address.contexts
        self._sentinels: Sentinels | None = None
        self._pool: SentinelConnectionPool | None = None
        if address.service:
            sentinel_options = {
                "socket_timeout": SENTINEL_SECONDS,
                "socket_connect_timeout": SENTINEL_SECONDS,
                "retry": Retry(NoBackoff(), 0),
                **address.sentinel_options,
            }
            self._sentinels = Sentinels(  # type: ignore[no-untyped-call]
                address.hosts, sentinel_kwargs=sentinel_options
            )
            self._pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
                address.service, self._sentinels, **self._options
            )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """A connection, ready for commands, as long as it is held. Raises one of FAILURES."""
        connection = await self.connect()
        try:
            yield connection
        finally:
            await connection.hang_up()

    async def connect(self) -> Connection:
        """Make a connection; whoever does hangs up. Raises one of FAILURES."""
        made = self._make()
        try:
            with _cancellable():
                async with asyncio.timeout(CONNECT_SECONDS):
                    await made.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            with suppress(*FAILURES):
                await made.disconnect(nowait=True)
            raise
        return Connection(made)

    def _make(self) -> redis_py.AbstractConnection:
        if self._pool is not None:
            made: redis_py.AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            return made
        host, port = self._hosts[0]
        if not self._is_tls:
            return redis_py.Connection(host=host, port=port, **self._options)
        connection = redis_py.SSLConnection(host=host, port=port, **self._options)
        self._contexts.lend(connection)
        return connection

    async def close(self) -> None:
        """Let go of the Sentinels. Idempotent."""
        if self._sentinels is not None:
            for sentinel in self._sentinels.sentinels:
                await sentinel.aclose()


@contextmanager
def _cancellable() -> Iterator[None]:
    """See to it that a cancellation meanwhile is not lost.

    asyncio.wait_for, with which redis-py asks Sentinels, may swallow one (up to Python 3.11).
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def parse_address(url: str) -> Address:
    """The address that a valid `engine.url` names (config/engine_url.py has its grammar).

    Raises ValueError with a sentence that shows nothing of the URL but its scheme and its options' names.
    """
    try:
        parsed = parse_redis_url(url)
    except ValueError as error:
        raise ValueError(f"engine.url must be {error}.") from None
    names = ",".join(f"{host}:{port}" for host, port in parsed.hosts)
    options: dict[str, Any] = {"db": parsed.database, **parsed.credentials}
    if not parsed.service:
        options |= parsed.options
    return Address(
        f"{parsed.service} of {names}" if parsed.service else names,
        parsed.hosts,
        options,
        parsed.is_tls,
        parsed.service,
        {name.removeprefix("sentinel_"): value for name, value in parsed.options.items()}
        if parsed.service
        else {},
        parsed.is_cluster,
    )
