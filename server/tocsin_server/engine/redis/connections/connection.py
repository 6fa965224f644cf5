"""A connection to Redis, which passes each reply on in the turn of the event loop that reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import InvalidResponse, RedisError

from tocsin_server.engine.redis.interfaces import Argument

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError)
"""The exceptions that end a connection, or an attempt to make one."""

LARGE_WORD_BYTES = 16_384
"""Above this size `pack_command` copies a word faster than hiredis."""

REPLY_SECONDS = 2.0
"""How long Redis may take for its next reply. After that the connection counts as broken.

This does not limit the time for all replies: a new connection would not help a Redis that is only overloaded.
"""

ARGUMENTS_MARK = ", with args beginning with"
"""In an error of Redis, what precedes the arguments of the command."""

OnReply = Callable[[Any], None]
"""Receives one reply, which may be an error. An exception that it raises ends the connection."""

_INCOMPLETE = object()


class RedisConnection(asyncio.Protocol):
    """A connection that redis-py has made, and whose socket is taken over.

    redis-py handles TLS, authentication and Sentinels. But it would wake a task for each read and run
    several coroutines for each reply (docs/decisions/0007-connections-are-taken-over-from-redis-py.md).

    The mutable state is `on_reply`, `received_at` and the failure. The owner sets `on_reply`; `fail` and
    `close` set the failure, after which no reply is passed on.
    """

    def __init__(self, made: AbstractConnection) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._made = made
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_INCOMPLETE
        )
        self.on_reply: OnReply = _reject
        """Receives replies. At first no command has been sent, so any reply is an error."""
        self.received_at = self._clock()
        """When data was last received, in the event loop's time."""
        self._failure: asyncio.Future[NoReturn] = loop.create_future()
        # No reply is buffered: redis-py has read the replies to all its commands.
        self._transport: asyncio.Transport = made._writer.transport  # type: ignore[union-attr,assignment]  # noqa: SLF001
        self._transport.set_protocol(self)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent or received. The owner may not have learned of the failure yet."""
        return self._failure.done() or self._transport.is_closing()

    def send(self, commands: bytes) -> bool:
        """Send packed commands without waiting. Returns False, and sends nothing, if it is closed."""
        transport = self._transport
        if self._failure.done() or transport.is_closing():  # uvloop raises on a write to a closing transport
            return False
        transport.write(commands)
        return True

    async def execute(self, *commands: bytes) -> list[Any]:
        """Send packed commands and return the reply to each. Raises one of CONNECTION_ERRORS.

        Only for a connection on which no other command is in flight.
        """
        replies: list[Any] = []
        complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def collect(reply: Any) -> None:
            if isinstance(reply, Exception):
                raise reply
            if complete.done():
                _reject(reply)
            replies.append(reply)
            if len(replies) == len(commands):
                complete.set_result(None)

        self.on_reply = collect
        self.send(b"".join(commands))
        outcomes: list[asyncio.Future[Any]] = [complete, self._failure]
        await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()
        self.on_reply = _reject
        return replies

    async def wait_for_failure(self, seconds: float) -> None:
        """Wait for at most `seconds`. Raises the exception that ended the connection, if it has ended."""
        await asyncio.wait([self._failure], timeout=seconds)
        if self._failure.done():
            self._failure.result()

    def fail(self, error: Exception) -> None:
        """End the connection: drop all further replies, and let `wait_for_failure` raise `error`.

        Idempotent.
        """
        self.on_reply = _discard
        if not self._failure.done():
            self._failure.set_exception(error)

    async def close(self) -> None:
        """Close the socket in any state, without waiting for Redis. Idempotent."""
        self.on_reply = _discard
        self._failure.cancel()
        if self._failure.done() and not self._failure.cancelled():
            self._failure.exception()  # retrieved, so that asyncio does not log it
        self._transport.abort()
        with suppress(*CONNECTION_ERRORS):
            await self._made.disconnect(nowait=True)

    # --------------------------------------------------------------------------------------- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Pass on each complete reply."""
        self.received_at = self._clock()
        parser = self._parser
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not _INCOMPLETE:
                self.on_reply(reply)
        except Exception as error:  # noqa: BLE001 - wait_for_failure raises it
            self.fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail: Redis closed the connection, or it broke."""
        self.fail(error or ConnectionFailed("Redis closed the connection"))


def pack_command(*command: Argument) -> bytes:
    """Encode a command for sending (RESP: a count, then the length and the bytes of each word).

    hiredis takes 0.9 ms to copy a word of 1 MB, and `join` takes 0.04 ms.
    """
    for word in command:
        if type(word) is bytes and len(word) > LARGE_WORD_BYTES:
            return _joined(command)
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub allows one word only
    return packed


def _joined(command: Sequence[Argument]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        encoded = word if isinstance(word, bytes) else str(word).encode()
        parts += (b"$%d\r\n" % len(encoded), encoded, b"\r\n")
    return b"".join(parts)


def describe(error: BaseException) -> str:
    """Describe an error, as the end of a sentence without its full stop.

    Redis repeats arguments of a command that it does not know, which may be payloads. They are left out.
    """
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error).partition(ARGUMENTS_MARK)[0]
    return text.strip().rstrip(".") or type(error).__name__


def _reject(reply: object) -> None:
    raise ConnectionFailed("Redis sent a reply without a command") from (
        reply if isinstance(reply, Exception) else None
    )


def _discard(reply: object) -> None:
    """The connection has ended: drop the reply."""
