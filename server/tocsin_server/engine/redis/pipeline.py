"""The pipeline: every call of a node to Redis, over one connection, in the order in which they were made."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import structlog
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.connections.address import CONNECT_SECONDS, Dialler
from tocsin_server.engine.redis.connections.backoff import Backoff
from tocsin_server.engine.redis.connections.connection import (
    FAILURES,
    SILENCE_SECONDS,
    Connection,
    pack,
    reason,
)
from tocsin_server.engine.redis.interfaces import CALL_SECONDS, Answer, Argument
from tocsin_server.engine.redis.scripts import Script
from tocsin_server.errors import EngineError

QUEUE_BYTES = 67_108_864
"""What may wait for Redis. Past it calls fail at once."""

BATCH_BYTES = 1_048_576
BATCH_CALLS = 1000
"""What leaves together at most, so that the first answers of a flood do not wait for the last questions."""

EXPIRY_SECONDS = 0.25
"""How often to look whose time is up: of calls that wait, of detours, and of Redis if it owes an answer.

To time each call would cost more than to read its answer.
"""

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


class Lesson(Call):
    """A script that Redis is told again. Nobody waits for it."""

    __slots__ = ()

    def __init__(self, command: bytes) -> None:
        super().__init__(command, SILENCE_SECONDS)

    def fail(self, why: str) -> None:
        """The next connection begins with it anyway."""

    def succeed(self, answer: Any) -> None:
        """Redis knows it; or will not learn, and another connection has to be tried."""
        if isinstance(answer, Exception):
            raise answer


class Pipeline:
    """Calls wait while others are under way, and then leave together.

        waiting --sent--> under way --answer--> succeeded | failed

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
        self._unanswered: deque[Call] = deque()  # of the calls sent last, and
        self._unknown: list[Call] = []  # those whose scripts Redis does not know
        self._is_repeating = False
        self._sent_at = 0.0
        self._connection: Connection | None = None
        self._is_about_to_send = False
        self._is_running = False
        self.trouble = f"Redis at {dialler.name} has not been reached yet."
        """Why nothing can be called at present, as a sentence; empty if it can."""
        self.connections = 0
        """How many there have been. A new one may lead to a Redis that has forgotten something."""

    @property
    def under_way(self) -> list[Call]:
        """The calls that were sent and have not been carried out yet, as far as is known, in their order."""
        return [*self._unknown, *self._unanswered]

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
            if not self._is_about_to_send and not self._unanswered:
                self._is_about_to_send = True
                asyncio.get_running_loop().call_soon(self._send_waiting)
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
            with self._expiring():
                while True:
                    await self._connect_and_serve()
                    await asyncio.sleep(self._backoff.next())
        finally:
            self._is_running = False
            self._fail_waiting()

    async def _connect_and_serve(self) -> None:
        try:
            async with self._dialler.connected() as connection:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.ask(*_lessons())
                self.connections += 1
                self.trouble = ""
                try:
                    await self._serve(connection)
                finally:
                    self._connection = None
                    self._fail_under_way()
        except FAILURES as error:
            self._lament(error)

    async def _serve(self, connection: Connection) -> NoReturn:
        connection.take = self._take
        self._connection = connection
        self._send_waiting()
        while True:
            await connection.hold(EXPIRY_SECONDS)
            heard_at = max(connection.heard_at, self._sent_at)
            if self._unanswered and asyncio.get_running_loop().time() - heard_at > SILENCE_SECONDS:
                raise TimeoutError

    def _lament(self, error: Exception) -> None:
        if not self.trouble:
            log.warning("the connection to Redis broke", redis=self._dialler.name, error=reason(error))
        self.trouble = f"Redis at {self._dialler.name} cannot be used: {reason(error)}."

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
            self._pop().fail("Redis could not be asked in time")

    def _fail_waiting(self) -> None:
        while self._waiting:
            self._pop().fail("the engine is not running")

    def _fail_under_way(self) -> None:
        for call in self.under_way:
            call.fail("Redis did not answer; whether it was done is unknown")
        self._unknown.clear()
        self._unanswered.clear()
        self._is_repeating = False

    # ----------------------------------------------------------------------------------------- back and forth

    def _send_waiting(self) -> None:
        """Let leave what waits, once nothing is under way."""
        self._is_about_to_send = False
        if self._connection is None or self._connection.is_over or self._unanswered:
            return
        batch: list[Call] = []
        size = 0
        now = asyncio.get_running_loop().time()
        while self._waiting and len(batch) < BATCH_CALLS and size < BATCH_BYTES:
            call = self._pop()
            if call.deadline <= now:
                call.fail("Redis could not be asked in time")
            elif not call.answer.done():
                batch.append(call)
                size += len(call.command)
        if batch:
            self._send(self._connection, batch)

    def _pop(self) -> Call:
        call = self._waiting.popleft()
        self.waiting_bytes -= len(call.command)
        return call

    def _send(self, connection: Connection, batch: list[Call]) -> None:
        self._unanswered.extend(batch)
        self._sent_at = asyncio.get_running_loop().time()
        connection.send(b"".join([call.command for call in batch]))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            raise reply
        if not self._unanswered:
            raise ConnectionFailed("Redis answered what nobody asked")
        call = self._unanswered[0]
        if isinstance(reply, NoScriptError):
            self._unknown.append(call)
        else:
            call.succeed(reply)  # until it returns, whoever makes an end of all fails this one too
            if isinstance(reply, ResponseError) and _is_of_replica(reply):
                raise ConnectionFailed("it is a replica now, which takes no writes")
        self._unanswered.popleft()
        if not self._unanswered:
            self._go_on()

    def _go_on(self) -> None:
        """All that was sent has been answered."""
        self._backoff.reset()
        unknown, self._unknown = self._unknown, []
        if unknown and self._connection is not None and not self._is_repeating:
            # Only SCRIPT FLUSH does this. It forgets all scripts at once, so none of these has overtaken
            # another, unless another node told Redis in between.
            self._is_repeating = True
            self._send(self._connection, [*map(Lesson, _lessons()), *unknown])
            return
        self._is_repeating = False
        for call in unknown:
            call.fail("Redis forgets its scripts")
        self._send_waiting()


def _lessons() -> list[bytes]:
    return [pack("SCRIPT", "LOAD", script.text) for script in scripts.ALL]


def _is_of_replica(error: ResponseError) -> bool:
    """Whether a server said so. Before Redis 7 a script quotes its command's error."""
    return isinstance(error, ReadOnlyError) or "READONLY" in str(error)
