"""The pipeline: every call of a node to Redis, over one connection, in the order in which they were made."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from tocsin_server.cluster.redis import scripts
from tocsin_server.cluster.redis.address import CONNECT_SECONDS, FAILURES, Dialler, hang_up
from tocsin_server.cluster.redis.backoff import Backoff
from tocsin_server.cluster.redis.calls import CALL_SECONDS, Answer, Argument
from tocsin_server.cluster.redis.keeper import raise_if_cancelled
from tocsin_server.cluster.redis.scripts import Script
from tocsin_server.errors import EngineError

SILENCE_SECONDS = 2.0
"""How long Redis may let the next answer wait, before the connection counts as broken.

Not how long all answers may take: a Redis that is merely overloaded gains nothing by a new connection.
"""

ATTENTION_SECONDS = 0.1
"""How often an answer puts that limit off: doing so for each would cost more than reading it."""

QUEUE_BYTES = 67_108_864
"""What may wait for Redis. Past it calls fail at once."""

BATCH_BYTES = 1_048_576
BATCH_CALLS = 1000
"""What leaves together at most, so that the first answers of a flood do not wait for the last questions."""

EXPIRY_SECONDS = 0.25
"""How often calls that wait for a connection are looked through for those whose time is up."""

log = structlog.get_logger()


class Refused(EngineError):
    """Redis answered that it will not."""


class Call:
    """Something asked of Redis, as it is sent; not after `deadline`, in the loop's time."""

    __slots__ = ("answer", "command", "deadline")

    def __init__(self, command: bytes, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.command = command
        self.deadline = loop.time() + seconds
        self.answer: Answer = loop.create_future()

    def fail(self, why: str) -> None:
        """Tell the caller, if there still is one."""
        if not self.answer.done():
            self.answer.set_exception(EngineError(why))

    def succeed(self, answer: Any) -> None:
        """Tell the caller, if there still is one."""
        if self.answer.done():
            return
        if isinstance(answer, ResponseError):
            self.answer.set_exception(Refused(f"Redis refused: {answer}"))
        else:
            self.answer.set_result(answer)


class Pipeline:
    """Calls wait while others are under way, and then leave together.

        waiting --take()--> under way --answer--> succeeded | failed

    One connection at a time, and nothing is sent again over the next one: what was under way when a
    connection broke has an unknown outcome and fails, what waited is sent by the next one if it comes in
    time. So a call that failed may have been carried out.
    """

    is_sharded = False

    def __init__(self, dialler: Dialler, backoff: Backoff, publish: str = "PUBLISH") -> None:
        self.publish = publish
        self._dialler = dialler
        self._backoff = backoff
        self._waiting: deque[Call] = deque()
        self.waiting_bytes = 0
        """Of the calls that have not been sent yet."""
        self.under_way: list[Call] = []
        """Those that were sent together last."""
        self._news = asyncio.Event()
        self._is_running = False
        self.trouble = f"Redis at {dialler.name} has not been reached yet."
        """Why nothing can be called at present, as a sentence; empty if it can."""
        self.connections = 0
        """How many there have been. A new one may lead to a Redis that has forgotten something."""

    def call(
        self,
        *command: Argument,
        seconds: float = CALL_SECONDS,
        after: Answer | None = None,  # noqa: ARG002 - it is behind any earlier call
    ) -> Answer:
        """Send a command within `seconds`."""
        return self.put(Call(pack(*command), seconds))

    def run_script(
        self,
        script: Script,
        keys: Sequence[str],
        *arguments: Argument,
        after: Answer | None = None,  # noqa: ARG002 - it is behind any earlier call
    ) -> Answer:
        """Run a script."""
        command = pack("EVALSHA", script.digest, len(keys), *keys, *arguments)
        return self.put(Call(command, CALL_SECONDS))

    def put(self, call: Call) -> Answer:
        """Let a call wait for its turn."""
        if not self._is_running:
            call.fail("the engine is not running")
        elif self.waiting_bytes + len(call.command) > QUEUE_BYTES:
            call.fail("too much waits for Redis")
        else:
            self._waiting.append(call)
            self.waiting_bytes += len(call.command)
            self._news.set()
        return call.answer

    def take_back(self) -> list[Call]:
        """The calls that have not been sent. They no longer are, unless they are put again."""
        calls = list(self._waiting)
        self._waiting.clear()
        self.waiting_bytes = 0
        return calls

    # --------------------------------------------------------------------------------------------------- life

    async def run(self) -> NoReturn:
        """Carry calls out until cancelled. Then all that wait fail."""
        self._is_running = True
        try:
            while True:
                await self._connect_and_serve()
                raise_if_cancelled()
                with self._expiring():
                    await asyncio.sleep(self._backoff.next())
        finally:
            self._is_running = False
            self._fail_waiting()

    async def _connect_and_serve(self) -> None:
        connection: AbstractConnection | None = None
        try:
            with self._expiring():
                connection = await self._dialler.connect()
                async with asyncio.timeout(CONNECT_SECONDS):
                    await _teach(connection)
            self._backoff.reset()
            self.connections += 1
            self.trouble = ""
            await self._serve(connection)
        except FAILURES as error:
            self._lament(error)
        finally:
            if connection is not None:
                await hang_up(connection)

    def _lament(self, error: Exception) -> None:
        if not self.trouble:
            log.warning("the connection to Redis broke", redis=self._dialler.name, error=reason(error))
        self.trouble = f"Redis at {self._dialler.name} cannot be used: {reason(error)}."

    async def _serve(self, connection: AbstractConnection) -> NoReturn:
        while True:
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
            batch = self.under_way = self._take()
            try:
                if batch:
                    await self._exchange(connection, batch)
            except BaseException:
                for call in batch:
                    call.fail("Redis did not answer; whether it was done is unknown")
                raise

    def _take(self) -> list[Call]:
        batch: list[Call] = []
        size = 0
        now = asyncio.get_running_loop().time()
        while self._waiting and len(batch) < BATCH_CALLS and size < BATCH_BYTES:
            call = self._waiting.popleft()
            self.waiting_bytes -= len(call.command)
            if call.deadline <= now:
                call.fail("Redis could not be asked in time")
            elif not call.answer.done():
                batch.append(call)
                size += len(call.command)
        return batch

    async def _exchange(self, connection: AbstractConnection, batch: list[Call]) -> None:
        unknown = await self._ask(connection, batch)
        if unknown:
            # Only SCRIPT FLUSH does this. It forgets all scripts at once, and everything whose order matters
            # is a script, so none has overtaken another.
            async with asyncio.timeout(SILENCE_SECONDS):
                await _teach(connection)
            for call in await self._ask(connection, unknown):
                call.fail("Redis forgets its scripts")

    async def _ask(self, connection: AbstractConnection, batch: list[Call]) -> list[Call]:
        """Send all, then read all answers; returns the calls whose scripts Redis does not know."""
        unknown = []
        loop = asyncio.get_running_loop()
        heard_at = loop.time()
        async with asyncio.timeout(SILENCE_SECONDS) as silence:
            await connection.send_packed_command(b"".join([call.command for call in batch]))
            for call in batch:
                answer = await _read(connection)
                if isinstance(answer, NoScriptError):
                    unknown.append(call)
                else:
                    call.succeed(answer)
                    if isinstance(answer, ResponseError) and _is_of_replica(answer):
                        raise ConnectionFailed("it is a replica now, which takes no writes")
                now = loop.time()
                if now - heard_at > ATTENTION_SECONDS:
                    silence.reschedule(now + SILENCE_SECONDS)
                    heard_at = now
        return unknown

    # ----------------------------------------------------------------------------------- calls that wait long

    @contextmanager
    def _expiring(self) -> Iterator[None]:
        """Meanwhile, let calls fail whose time is up."""
        timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()

        def expire() -> None:
            nonlocal timer
            self._expire(loop.time())
            timer = loop.call_later(EXPIRY_SECONDS, expire)

        expire()
        try:
            yield
        finally:
            if timer:
                timer.cancel()

    def _expire(self, now: float) -> None:
        while self._waiting and self._waiting[0].deadline <= now:
            call = self._waiting.popleft()
            self.waiting_bytes -= len(call.command)
            call.fail("Redis could not be reached in time")

    def _fail_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().fail("the engine is not running")
        self.waiting_bytes = 0


def pack(*command: Argument) -> bytes:
    """A command as it is sent."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub allows one word only
    return packed


async def _teach(connection: AbstractConnection) -> None:
    commands = [pack("SCRIPT", "LOAD", script.text) for script in scripts.ALL]
    await connection.send_packed_command(b"".join(commands))
    for _ in scripts.ALL:
        await connection.read_response()


async def _read(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error


def _is_of_replica(error: ResponseError) -> bool:
    """Whether a server said so. Before Redis 7 a script quotes its command's error."""
    return isinstance(error, ReadOnlyError) or "READONLY" in str(error)


def reason(error: BaseException) -> str:
    """What went wrong, as the end of a sentence."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).strip().rstrip(".") or type(error).__name__
