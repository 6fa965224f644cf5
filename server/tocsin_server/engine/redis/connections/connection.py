"""A connection to Redis, whose replies are handed over the moment they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import InvalidResponse, RedisError

from tocsin_server.engine.redis.interfaces import Argument

FAILURES = (RedisError, OSError, TimeoutError)
"""What ends a connection, or an attempt to make one."""

SILENCE_SECONDS = 2.0
"""How long Redis may let the next answer wait, before the connection counts as broken.

Not how long all answers may take: a Redis that is merely overloaded gains nothing by a new connection.
"""

Take = Callable[[Any], None]
"""Takes one reply; an error that Redis answers is a reply too. What it raises ends the connection."""

_NONE_YET = object()


class Connection(asyncio.Protocol):
    """Made by redis-py, which knows TLS, authentication and Sentinels; then its socket is taken over.

    redis-py would wake a task for each read, and let it go through several coroutines for each reply. Here a
    reply reaches `take` within the turn of the loop that read it.
    """

    def __init__(self, made: AbstractConnection) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._made = made
        self._replies = hiredis.Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_NONE_YET
        )
        self.take: Take = _refuse
        """Who is told of replies. Nobody asked at first, so there must be none."""
        self.heard_at = self._clock()
        """When something last came, in the loop's time."""
        self._ended: asyncio.Future[NoReturn] = loop.create_future()
        # Nothing is under way: redis-py has read what it asked for to the end.
        self._transport: asyncio.Transport = made._writer.transport  # type: ignore[union-attr,assignment]  # noqa: SLF001
        self._transport.set_protocol(self)

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent or heard any more. Whoever holds it may not have been told yet."""
        return self._ended.done() or self._transport.is_closing()

    def send(self, commands: bytes) -> None:
        """Send without waiting. Where it is over, nothing."""
        if not self._transport.is_closing():  # uvloop refuses to write then
            self._transport.write(commands)

    async def ask(self, *commands: bytes) -> list[Any]:
        """Send commands, and wait for the reply to each. Raises one of FAILURES."""
        replies: list[Any] = []
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take(reply: Any) -> None:
            if isinstance(reply, Exception):
                raise reply
            if answered.done():
                _refuse(reply)
            replies.append(reply)
            if len(replies) == len(commands):
                answered.set_result(None)

        self.take = take
        self.send(b"".join(commands))
        outcomes: list[asyncio.Future[Any]] = [answered, self._ended]
        await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            self._ended.result()
        self.take = _refuse
        return replies

    async def hold(self, seconds: float) -> None:
        """Wait so long. Raises what has ended it, if it ends meanwhile."""
        await asyncio.wait([self._ended], timeout=seconds)
        if self._ended.done():
            self._ended.result()

    def end(self, error: Exception) -> None:
        """Hand over nothing any more, and let whoever holds it know why. Idempotent."""
        self.take = _ignore
        if not self._ended.done():
            self._ended.set_exception(error)

    async def hang_up(self) -> None:
        """Close it, whatever state it is in, without waiting for the other side. Idempotent."""
        self.take = _ignore
        self._ended.cancel()
        if self._ended.done() and not self._ended.cancelled():
            self._ended.exception()  # has been told, or concerns nobody
        self._transport.abort()
        with suppress(*FAILURES):
            await self._made.disconnect(nowait=True)

    # --------------------------------------------------------------------------------------- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Hand over each reply that is whole."""
        self.heard_at = self._clock()
        replies = self._replies
        try:
            replies.feed(data)
            while (reply := replies.gets()) is not _NONE_YET:
                self.take(reply)
        except Exception as error:  # noqa: BLE001 - whoever holds it is told
            self.end(error)

    def connection_lost(self, error: Exception | None) -> None:
        """The other side closed it, or it broke."""
        self.end(error or ConnectionFailed("Redis closed the connection"))


def pack(*command: Argument) -> bytes:
    """A command as it is sent."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub allows one word only
    return packed


def reason(error: BaseException) -> str:
    """What went wrong, as the end of a sentence."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).strip().rstrip(".") or type(error).__name__


def _refuse(reply: object) -> None:
    raise ConnectionFailed("Redis answered what nobody asked") from (
        reply if isinstance(reply, Exception) else None
    )


def _ignore(reply: object) -> None:
    """Concerns nobody any more."""
