"""The link: the connection over which a node hears what is announced, replaced when it is not whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

import structlog
from redis.asyncio.connection import AbstractConnection

from tocsin_server.cluster.redis.address import FAILURES, Dialler, hang_up
from tocsin_server.cluster.redis.backoff import Backoff
from tocsin_server.cluster.redis.calls import CALL_SECONDS, Hear
from tocsin_server.cluster.redis.keeper import raise_if_cancelled
from tocsin_server.cluster.redis.pipeline import SILENCE_SECONDS, reason
from tocsin_server.cluster.redis.subscriptions import Command, Subscriptions
from tocsin_server.errors import EngineError

log = structlog.get_logger()

Resume = Callable[[Sequence[bytes]], None]
"""Takes the names that were not heard for a while, once they are again."""


class Deaf(Exception):
    """The link is open, and nothing comes through."""


class Link:
    """One connection after another.

        broken --connect--> restoring --all confirmed--> whole --prove()--> trusted … --any failure--> broken

    Whether it is whole only a canary knows: pub/sub neither acknowledges nor counts, so a dead link looks
    like a quiet one.
    """

    def __init__(self, dialler: Dialler, backoff: Backoff, resume: Resume) -> None:
        self._dialler = dialler
        self._backoff = backoff
        self._resume = resume
        self._subscriptions = Subscriptions()
        self._wishes = asyncio.Event()
        self._deafness: asyncio.Future[NoReturn] | None = None
        self._is_running = False
        self.restored = asyncio.Event()
        """Set by every connection that hears all that is wanted. Whoever waits for it clears it."""
        self.proven = asyncio.Event()
        """Set while a canary has come through the present connection."""
        self.is_whole = False
        self.connections = 0
        """How many there have been that were whole."""
        self.trouble = f"Redis at {dialler.name} has not been heard yet."
        """Why nothing can be heard at present, as a sentence; empty if a canary came through."""

    async def listen(self, name: str, hear: Hear) -> None:
        """Hear a name, as Ears says."""
        await self._confirmed(self._subscriptions.want(name.encode(), hear))

    async def forget(self, name: str) -> None:
        """Hear a name no more. Idempotent."""
        await self._confirmed(self._subscriptions.forget(name.encode()))

    async def _confirmed(self, confirmation: asyncio.Future[None] | None) -> None:
        if not self._is_running:
            raise EngineError("the engine is not running")
        if confirmation is not None:
            self._wishes.set()
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await confirmation
            except TimeoutError:
                raise EngineError("Redis did not confirm the subscription in time") from None

    def prove(self) -> None:
        """A canary came through."""
        if self.is_whole:
            self.trouble = ""
            self.proven.set()

    def replace(self, why: str) -> None:
        """Give the present connection up, since it is deaf."""
        if self._deafness is not None and not self._deafness.done():
            self._deafness.set_exception(Deaf(why))

    # --------------------------------------------------------------------------------------------------- life

    async def run(self) -> NoReturn:
        """Hear until cancelled."""
        self._is_running = True
        try:
            while True:
                await self._connect_and_hear()
                raise_if_cancelled()
                await asyncio.sleep(self._backoff.next())
        finally:
            self._is_running = False

    async def _connect_and_hear(self) -> None:
        connection: AbstractConnection | None = None
        self._deafness = asyncio.get_running_loop().create_future()
        try:
            connection = await self._dialler.connect()
            self._subscriptions.begin()
            self._wishes.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ask(connection))
                tasks.create_task(self._hear(connection))
                tasks.create_task(self._see_progress())
                await self._deafness
        except* (*FAILURES, Deaf) as errors:
            self._lament(errors)
        except* Exception as errors:
            log.exception("the listener died, and is replaced")
            self._lament(errors)
        finally:
            self.is_whole = False
            self.proven.clear()
            self._deafness.cancel()
            if connection is not None:
                await hang_up(connection)

    def _lament(self, errors: BaseExceptionGroup[Exception]) -> None:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not self.trouble:
            log.warning("the link to Redis broke", redis=self._dialler.name, error=reason(error))
        self.trouble = f"Redis at {self._dialler.name} cannot be heard: {reason(error)}."

    async def _ask(self, connection: AbstractConnection) -> NoReturn:
        while True:
            await self._wishes.wait()
            self._wishes.clear()
            while command := self._subscriptions.take():
                await self._send(connection, command)
            self._check_restored()

    async def _send(self, connection: AbstractConnection, command: Command) -> None:
        word = "SUBSCRIBE" if command.is_subscribe else "UNSUBSCRIBE"
        await connection.send_command(word, *command.names)

    async def _hear(self, connection: AbstractConnection) -> NoReturn:
        while True:
            kind, name, message = await connection.read_response(disconnect_on_error=False)
            if kind != b"message":
                self._subscriptions.confirm(name)
                self._check_restored()
            elif hear := self._subscriptions.hear_of(name):
                hear(message)

    async def _see_progress(self) -> None:
        """Until it is whole, and a canary can watch over it."""
        while not self.is_whole:
            missing = self._subscriptions.missing
            await asyncio.sleep(SILENCE_SECONDS)
            if not self.is_whole and self._subscriptions.missing == missing:
                raise Deaf("its link is open but silent")

    def _check_restored(self) -> None:
        if self.is_whole or not self._subscriptions.is_restored:
            return
        self.is_whole = True
        self.connections += 1
        self._backoff.reset()
        self.restored.set()
        if names := self._subscriptions.take_restored():
            log.info("the link to Redis is whole again", redis=self._dialler.name, channels=len(names))
            self._resume(names)
