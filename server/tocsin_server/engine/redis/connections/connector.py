"""The connector: makes connections to the Redis at an address.

Beside it: backoff, and the check of the version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from random import Random

from redis.asyncio import connection as redis_py
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.connection import (
    CONNECTION_ERRORS,
    RedisConnection,
    pack_command,
)
from tocsin_server.engine.redis.connections.sentinels import Sentinels
from tocsin_server.errors import EngineError

CONNECT_SECONDS = 2.0
"""The limit of one attempt, name look-up, TLS and authentication included."""

SENTINEL_SECONDS = CONNECT_SECONDS / 4
"""The limit of each step of a request to a Sentinel, so that there is time left to reach the master."""

FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 1.0
"""A thousand nodes reconnect within about a second, at about a thousand attempts per second."""

OLDEST_VERSION = (6, 2)
"""Redis 6.2 introduced exclusive bounds of stream ranges, which reading a history needs."""

OLDEST_CLUSTER_VERSION = (7, 0)
"""Redis 7.0 introduced sharded pub/sub. The older kind sends every message to every server of a cluster."""


class Connector:
    """Makes connections to the current master at an address. The owner must call `close` in the end."""

    def __init__(self, address: Address, client_name: str) -> None:
        self.name = address.name
        common = {
            "protocol": 2,  # pub/sub messages are then plain lists
            "socket_timeout": None,  # commands have time limits, reads have none
            "socket_connect_timeout": CONNECT_SECONDS,
            "client_name": client_name,
        }
        self._options = {**common, **address.options}
        self._is_tls = address.is_tls
        self._hosts = address.hosts
        self._socket_path = address.socket_path
        self._tls_contexts = address.tls_contexts
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
    async def connected(self) -> AsyncIterator[RedisConnection]:
        """Make a connection, and close it at the end of the context. Raises one of CONNECTION_ERRORS."""
        connection = await self.connect()
        try:
            yield connection
        finally:
            await connection.close()

    async def connect(self) -> RedisConnection:
        """Make a connection, which the caller must close. Raises one of CONNECTION_ERRORS."""
        connection = self._make()
        try:
            with _cancellable():
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            with suppress(*CONNECTION_ERRORS):
                await connection.disconnect(nowait=True)
            raise
        return RedisConnection(connection)

    def _make(self) -> redis_py.AbstractConnection:
        if self._pool is not None:
            made: redis_py.AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            if isinstance(made, redis_py.SSLConnection):
                self._tls_contexts.apply_to(made)
            return made
        if self._socket_path:
            return redis_py.UnixDomainSocketConnection(path=self._socket_path, **self._options)
        host, port = self._hosts[0]
        if not self._is_tls:
            return redis_py.Connection(host=host, port=port, **self._options)
        connection = redis_py.SSLConnection(host=host, port=port, **self._options)
        self._tls_contexts.apply_to(connection)
        return connection

    async def close(self) -> None:
        """Close the connections to the Sentinels. Idempotent."""
        if self._sentinels is not None:
            for sentinel in self._sentinels.sentinels:
                await sentinel.aclose()


@contextmanager
def _cancellable() -> Iterator[None]:
    """Raise CancelledError at the end of the context if the task was cancelled within it.

    redis-py requests the master from Sentinels with asyncio.wait_for, which may swallow a cancellation (up to
    Python 3.11).
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


class Backoff:
    """Full jitter: a random wait between 0 and a bound that doubles with each failure."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.failures = 0
        """How many attempts have failed since the last success."""

    def reset(self) -> None:
        """The last attempt succeeded: return to the first bound."""
        self.failures = 0

    def next(self) -> float:
        """The seconds to wait after another failure."""
        bound = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(self.failures, 16))
        self.failures += 1
        return self._random.uniform(0, bound)


async def read_server_info(connector: Connector) -> dict[str, str]:
    """Read the server section of INFO. Raises one of CONNECTION_ERRORS."""
    async with connector.connected() as connection, asyncio.timeout(CONNECT_SECONDS):
        (reply,) = await connection.execute(pack_command("INFO", "server"))
    return dict(line.partition(":")[::2] for line in bytes(reply).decode().splitlines())


def check_version(info: dict[str, str], name: str, oldest: tuple[int, int], why: str = "") -> None:
    """Raise EngineError if a server is too old. `why` is appended to the message."""
    version = info.get("redis_version", "0")
    if tuple(map(int, version.split(".")[:2])) < oldest:
        raise EngineError(f"Redis at {name} is {version}, but must be at least {oldest[0]}.{oldest[1]}{why}")
