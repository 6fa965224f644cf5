"""The pipeline: sends the commands of a node to one Redis server, over one connection, in their order.

A command passes through these states:

    queued --_send_queued()--> in flight --_on_reply()--> resolved | failed

A command is sent at once if nothing is in flight, so that at a low rate none waits for a turn of the event
loop. Commands that are made while others are in flight are queued and then sent together, as one batch. There
is one connection at a time, and no command is sent again on the next one. When a connection breaks, commands
in flight fail, and may have been carried out. Queued ones wait for the next connection until their deadline.

What follows from a reply to `send` runs before the next reply is taken. It may make further commands.

The mutable state, and the methods that change it (all synchronous, except for `run` and its parts):

    _queue, queued_bytes      enqueue() adds; take_queued(), _send_queued(), _expire(), _fail_queued() remove
    _in_flight, _sent_at      _send() adds; _on_reply() removes one, in order; _fail_in_flight() removes all
    _script_missing,          _on_reply() adds; _on_batch_done() sends them again or fails them;
    _is_reloading_scripts     _fail_in_flight() removes all
    _connection               _serve() sets it; _connect_and_serve() clears it when the connection ends
    connection_count,         _connect_and_serve() and _report_failure()
    unready_reason
    _is_running               run()
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import structlog
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.connections.connection import (
    CONNECTION_ERRORS,
    REPLY_SECONDS,
    RedisConnection,
    describe,
    pack_command,
)
from tocsin_server.engine.redis.connections.connector import CONNECT_SECONDS, Backoff, Connector
from tocsin_server.engine.redis.interfaces import COMMAND_SECONDS, Argument, PendingReply
from tocsin_server.engine.redis.scripts import Script
from tocsin_server.errors import EngineError, EngineFull

MAX_QUEUED_BYTES = 67_108_864
"""How much may be queued for Redis. Beyond it, commands fail at once."""

MAX_BATCH_BYTES = 1_048_576
MAX_BATCH_COMMANDS = 1000
"""The limits of one batch. In a flood, the first replies then need not wait for the last commands."""

EXPIRY_CHECK_SECONDS = 0.25
"""How often deadlines are checked: of queued commands, of redirected commands, and of Redis' next reply.

A timer for each command would cost more than reading its reply.
"""

READ_SECONDS = 0.001
"""How long a reply that is late is waited for once more, so that the event loop reads what has arrived.

After it was blocked for long, it may look at timers first.
"""

OUT_OF_MEMORY = "command not allowed when used memory"
"""A part of the error of a command for which Redis has no memory. Within a script, other words precede it."""

log = structlog.get_logger()


class CommandRejected(EngineError):
    """Redis answered a command with an error."""


class RedisCommand:
    """One command in the pipeline.

    It is not sent for the first time after `deadline`, in the event loop's time.
    """

    __slots__ = ("deadline", "packed", "reply")

    def __init__(self, packed: bytes, seconds: float, reply: EagerFuture[Any] | None = None) -> None:
        """`reply` is the future for the reply, if the caller has made one. It has the same interface."""
        loop = asyncio.get_running_loop()
        self.packed = packed
        self.deadline = loop.time() + seconds
        self.reply: PendingReply = loop.create_future() if reply is None else cast("PendingReply", reply)

    def fail(self, why: str) -> None:
        """Let the reply raise EngineError, unless it is done or cancelled."""
        if not self.reply.done():
            self.reply.set_exception(EngineError(why))

    def resolve(self, reply: Any) -> None:
        """Set the reply, unless it is done or cancelled.

        An error reply raises CommandRejected, or EngineFull if Redis has no memory for the command.
        """
        if self.reply.done():
            return
        if isinstance(reply, ResponseError):
            self.reply.set_exception(_rejection(reply))
        else:
            self.reply.set_result(reply)


class EagerCommand(EagerFuture[Any]):
    """A command that is the future for its own reply. It has the interface of RedisCommand.

    Its bytes are released with the reply: a broadcast keeps the futures of all its channels until its end.
    """

    __slots__ = ("deadline", "packed")

    def __init__(self, packed: bytes, deadline: float) -> None:
        EagerFuture.__init__(self)  # half the cost of super()
        self.packed = packed
        self.deadline = deadline

    @property
    def reply(self) -> PendingReply:
        """The command itself."""
        return cast("PendingReply", self)

    def fail(self, why: str) -> None:
        """As RedisCommand does."""
        self.packed = b""
        if not self.done():
            self.set_exception(EngineError(why))

    def resolve(self, reply: Any) -> None:
        """As RedisCommand does."""
        self.packed = b""
        if self._is_done:
            return
        if isinstance(reply, ResponseError):
            self.set_exception(_rejection(reply))
        else:
            self.set_result(reply)


AnyCommand = RedisCommand | EagerCommand


def _rejection(reply: ResponseError) -> EngineError:
    if OUT_OF_MEMORY in str(reply):
        return EngineFull()
    return CommandRejected(f"Redis rejected the command: {reply}")


class ScriptLoad(RedisCommand):
    """Loads a script again. No caller awaits its reply."""

    __slots__ = ()

    def __init__(self, packed: bytes) -> None:
        super().__init__(packed, REPLY_SECONDS)

    def fail(self, why: str) -> None:
        """Do nothing: every new connection begins by loading the scripts."""

    def resolve(self, reply: Any) -> None:
        """End the connection by raising if Redis did not load the script."""
        if isinstance(reply, Exception):
            raise reply


class Pipeline:
    """Implements Commands for one server.

    The owner runs `run` in a task, before which every command fails.
    """

    is_sharded = False

    def __init__(self, connector: Connector, backoff: Backoff, publish_command: str = "PUBLISH") -> None:
        self.publish_command = publish_command
        self.connector = connector
        """How to make further connections to the server."""
        self._connector = connector
        self._backoff = backoff
        self._clock: Callable[[], float] = time.monotonic
        self._queue: deque[AnyCommand] = deque()
        self.queued_bytes = 0
        """The size of the queued commands."""
        self._in_flight: deque[AnyCommand] = deque()
        self._script_missing: list[AnyCommand] = []
        self._is_reloading_scripts = False
        self._sent_at = 0.0
        self._connection: RedisConnection | None = None
        self._is_running = False
        self.unready_reason = f"Redis at {connector.name} has not been reached yet."
        """Why no command can be sent now, as a sentence. Empty if commands can be sent."""
        self.connection_count = 0
        """How many connections were made so far. A new one may lead to a Redis that has lost data."""

    @property
    def name(self) -> str:
        """The server's name in messages and logs."""
        return self._connector.name

    @property
    def in_flight(self) -> list[AnyCommand]:
        """The commands that were sent and, as far as is known, not carried out yet, in their order."""
        return [*self._script_missing, *self._in_flight]

    def execute(
        self,
        *command: Argument,
        seconds: float = COMMAND_SECONDS,
        after: PendingReply | None = None,  # noqa: ARG002 - it follows every earlier command
    ) -> PendingReply:
        """Send a command. It fails if it is not sent within `seconds`."""
        return self.enqueue(RedisCommand(pack_command(*command), seconds))

    def send(self, packed: bytes, key: str) -> EagerFuture[Any]:  # noqa: ARG002 - one server has all keys
        """Send a command that is packed already."""
        now = self._clock()
        command = EagerCommand(packed, now + COMMAND_SECONDS)
        connection = self._connection
        if self._in_flight or self._queue or connection is None or not connection.send(packed):
            self.enqueue(command)
        else:
            self._in_flight.append(command)
            self._sent_at = now
        return command

    def run_script(
        self,
        script: Script,
        keys: Sequence[str],
        *arguments: Argument,
        after: PendingReply | None = None,  # noqa: ARG002 - it follows every earlier command
    ) -> PendingReply:
        """Run a script."""
        packed = pack_command("EVALSHA", script.digest, len(keys), *keys, *arguments)
        return self.enqueue(RedisCommand(packed, COMMAND_SECONDS))

    def enqueue(self, command: AnyCommand) -> PendingReply:
        """Queue a command, and send it now if nothing is in flight."""
        if not self._is_running:
            command.fail("the engine is not running")
        elif self.queued_bytes + len(command.packed) > MAX_QUEUED_BYTES:
            command.fail("too many commands are queued for Redis")
        else:
            self._queue.append(command)
            self.queued_bytes += len(command.packed)
            if not self._in_flight:
                self._send_queued()
        return command.reply

    def take_queued(self) -> list[AnyCommand]:
        """Remove and return the queued commands.

        The caller must enqueue each of them somewhere or fail it.
        """
        commands = list(self._queue)
        self._queue.clear()
        self.queued_bytes = 0
        return commands

    # ------------------------------------------------------------------------------------------- connections

    async def run(self) -> NoReturn:
        """Connect, and reconnect, until cancelled. Then all queued commands fail."""
        self._clock = asyncio.get_running_loop().time
        self._is_running = True
        try:
            with self._expiring():
                while True:
                    await self._connect_and_serve()
                    await asyncio.sleep(self._backoff.next())
        finally:
            self._is_running = False
            self._fail_queued()

    async def _connect_and_serve(self) -> None:
        try:
            async with self._connector.connected() as connection:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.execute(*_script_loads())
                self.connection_count += 1
                self.unready_reason = ""
                try:
                    await self._serve(connection)
                finally:
                    self._connection = None
                    self._fail_in_flight()
        except CONNECTION_ERRORS as error:
            self._report_failure(error)
        except Exception as error:
            self._report_failure(
                error
            )  # there is no connection until the supervisor has restarted the pipeline
            raise

    async def _serve(self, connection: RedisConnection) -> NoReturn:
        connection.on_reply = self._on_reply
        self._connection = connection
        self._send_queued()
        while True:
            await connection.wait_for_failure(EXPIRY_CHECK_SECONDS)
            if self._is_late(connection):
                await connection.wait_for_failure(READ_SECONDS)
                if self._is_late(connection):
                    raise TimeoutError

    def _is_late(self, connection: RedisConnection) -> bool:
        """Whether Redis has not sent the next reply in time."""
        active_at = max(connection.received_at, self._sent_at)
        return bool(self._in_flight) and self._clock() - active_at > REPLY_SECONDS

    def _report_failure(self, error: Exception) -> None:
        if not self.unready_reason:
            log.warning(
                "redis_disconnected", connection="pipeline", redis=self._connector.name, error=describe(error)
            )
        self.unready_reason = f"Redis at {self._connector.name} cannot be used: {describe(error)}."

    @contextmanager
    def _expiring(self) -> Iterator[None]:
        """Within this context, fail the queued commands whose deadline has passed."""
        timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()

        def expire() -> None:
            nonlocal timer
            self._expire(loop.time())
            timer = loop.call_later(EXPIRY_CHECK_SECONDS, expire)

        expire()
        try:
            yield
        finally:
            if timer:
                timer.cancel()

    def _expire(self, now: float) -> None:
        while self._queue and self._queue[0].deadline <= now:
            self._pop().fail("the command could not be sent to Redis in time")

    def _fail_queued(self) -> None:
        while self._queue:
            self._pop().fail("the engine is not running")

    def _fail_in_flight(self) -> None:
        for command in self.in_flight:
            command.fail("Redis did not reply; the outcome of the command is unknown")
        self._script_missing.clear()
        self._in_flight.clear()
        self._is_reloading_scripts = False

    # --------------------------------------------------------------------------------------- sending, replies

    def _send_queued(self) -> None:
        """Send a batch of queued commands, unless commands are in flight or there is no connection."""
        connection, queue = self._connection, self._queue
        if not queue or self._in_flight or connection is None or connection.is_closed:
            return
        batch: list[AnyCommand] = []
        late: list[AnyCommand] = []
        size = 0
        now = self._clock()
        while queue and len(batch) < MAX_BATCH_COMMANDS and size < MAX_BATCH_BYTES:
            command = queue.popleft()
            length = len(command.packed)
            self.queued_bytes -= length
            if command.deadline <= now:
                late.append(command)
            elif not command.reply.done():
                batch.append(command)
                size += length
        if batch:
            self._send(connection, batch, now)
        for command in late:  # what follows from that may make further commands
            command.fail("the command could not be sent to Redis in time")

    def _pop(self) -> AnyCommand:
        command = self._queue.popleft()
        self.queued_bytes -= len(command.packed)
        return command

    def _send(self, connection: RedisConnection, batch: list[AnyCommand], now: float) -> None:
        self._in_flight.extend(batch)
        self._sent_at = now
        connection.send(b"".join([command.packed for command in batch]))

    def _on_reply(self, reply: Any) -> None:
        in_flight = self._in_flight
        if isinstance(reply, Exception):
            self._on_error_reply(reply)
        elif in_flight:
            # If this raises, the command is still in flight and fails with the others.
            in_flight[0].resolve(reply)
        else:
            raise ConnectionFailed("Redis sent a reply without a command")
        in_flight.popleft()
        if not in_flight:
            self._on_batch_done()

    def _on_error_reply(self, reply: Exception) -> None:
        if not isinstance(reply, ResponseError):
            raise reply
        if not self._in_flight:
            raise ConnectionFailed("Redis sent a reply without a command")
        command = self._in_flight[0]
        if isinstance(reply, NoScriptError):
            self._script_missing.append(command)
            return
        command.resolve(reply)
        if _is_read_only(reply):
            raise ConnectionFailed("the server is now a replica and accepts no writes")

    def _on_batch_done(self) -> None:
        """All commands in flight have been answered: send the next batch.

        There are two cases for commands whose scripts Redis does not know, which only SCRIPT FLUSH causes:
        1. Load the scripts and send these commands again. Their order is kept, because SCRIPT FLUSH removes
           all scripts at once, unless another node loaded the scripts in between.
        2. If that has just been done, fail them.
        """
        if self._backoff.failures:
            self._backoff.reset()
        if not self._script_missing:
            self._is_reloading_scripts = False
            if self._queue:
                self._send_queued()
            return
        missing, self._script_missing = self._script_missing, []
        if self._connection is not None and not self._is_reloading_scripts:
            self._is_reloading_scripts = True
            batch = [*map(ScriptLoad, _script_loads()), *missing]
            self._send(self._connection, batch, self._clock())
            return
        self._is_reloading_scripts = False
        for command in missing:
            command.fail("Redis does not keep its scripts")
        self._send_queued()


def _script_loads() -> list[bytes]:
    return [pack_command("SCRIPT", "LOAD", script.text) for script in scripts.ALL]


def _is_read_only(error: ResponseError) -> bool:
    """Whether a replica rejected a write.

    Before Redis 7, a script's error quotes the error of its command.
    """
    return isinstance(error, ReadOnlyError) or "READONLY" in str(error)
