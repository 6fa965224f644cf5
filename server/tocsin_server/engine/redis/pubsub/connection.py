"""The link: the connection over which a node hears what is announced, replaced when it is not whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import structlog

from tocsin_server.engine.redis.connections.address import Dialler
from tocsin_server.engine.redis.connections.backoff import Backoff
from tocsin_server.engine.redis.connections.connection import (
    FAILURES,
    SILENCE_SECONDS,
    Connection,
    pack,
    reason,
)
from tocsin_server.engine.redis.interfaces import CALL_SECONDS, Hear
from tocsin_server.engine.redis.pubsub.subscriptions import Command, Subscriptions
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
        self._connection: Connection | None = None
        self._is_about_to_ask = False
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
            self._ask_soon()
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
        if self._connection is not None:
            self._connection.end(Deaf(why))

    # --------------------------------------------------------------------------------------------------- life

    async def run(self) -> NoReturn:
        """Hear until cancelled."""
        self._is_running = True
        try:
            while True:
                await self._connect_and_hear()
                await asyncio.sleep(self._backoff.next())
        finally:
            self._is_running = False

    async def _connect_and_hear(self) -> None:
        try:
            async with self._dialler.connected() as connection:
                try:
                    await self._serve(connection)
                finally:
                    self._connection = None
                    self.is_whole = False
                    self.proven.clear()
        except (*FAILURES, Deaf) as error:
            self._lament(error)
        except Exception as error:
            log.exception("the listener died, and is replaced")
            self._lament(error)

    async def _serve(self, connection: Connection) -> NoReturn:
        self._subscriptions.begin()
        connection.take = self._take
        self._connection = connection
        self._ask()
        while True:
            missing = self._subscriptions.missing
            await connection.hold(SILENCE_SECONDS)
            if not self.is_whole and self._subscriptions.missing == missing:
                raise Deaf("its link is open but silent")  # once it is whole, a canary watches over it

    def _lament(self, error: Exception) -> None:
        if not self.trouble:
            log.warning("the link to Redis broke", redis=self._dialler.name, error=reason(error))
        self.trouble = f"Redis at {self._dialler.name} cannot be heard: {reason(error)}."

    def _ask_soon(self) -> None:
        """What is wished for within one turn of the loop leaves together."""
        if self._connection is not None and not self._is_about_to_ask:
            self._is_about_to_ask = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._is_about_to_ask = False
        if self._connection is None:
            return
        try:
            while command := self._subscriptions.take():
                self._send(self._connection, command)
            self._see_progress()
        except Exception as error:  # noqa: BLE001 - logged where the connection ends
            self._connection.end(error)

    def _send(self, connection: Connection, command: Command) -> None:
        word = "SUBSCRIBE" if command.is_subscribe else "UNSUBSCRIBE"
        connection.send(pack(word, *command.names))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        kind, name, message = reply
        if kind != b"message":
            self._subscriptions.confirm(name)
            self._see_progress()
        elif hear := self._subscriptions.hear_of(name):
            hear(message)

    def _see_progress(self) -> None:
        if self._subscriptions.has_more:
            self._ask_soon()
        if self.is_whole or not self._subscriptions.is_restored:
            return
        self.is_whole = True
        self.connections += 1
        self._backoff.reset()
        self.restored.set()
        if names := self._subscriptions.take_restored():
            log.info("the link to Redis is whole again", redis=self._dialler.name, channels=len(names))
            self._resume(names)
