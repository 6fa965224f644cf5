"""The link to one master of a cluster, over which its slots' announcements are heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tocsin_server.engine.redis.cluster.redirects import REDIRECTIONS
from tocsin_server.engine.redis.cluster.subscriptions import Moved, ShardSubscriptions
from tocsin_server.engine.redis.connections.address import Dialler
from tocsin_server.engine.redis.connections.backoff import Backoff
from tocsin_server.engine.redis.connections.connection import Connection, pack
from tocsin_server.engine.redis.pubsub.connection import Link, Resume
from tocsin_server.engine.redis.pubsub.subscriptions import Command


class ShardLink(Link):
    """A link by sharded pub/sub. `doubt` is called when Redis says that a name is not served here (any more).

    It follows no slot by itself: whoever knows the topology moves names from link to link.
    """

    def __init__(self, dialler: Dialler, backoff: Backoff, resume: Resume, doubt: Callable[[], None]) -> None:
        super().__init__(dialler, backoff, resume)
        self._subscriptions: ShardSubscriptions = ShardSubscriptions()
        self._doubt = doubt

    def surrender(self, is_elsewhere: Callable[[bytes], bool]) -> list[Moved]:
        """Give up the names that another link is to hear, with whoever waits for them."""
        moved = self._subscriptions.surrender(is_elsewhere)
        self._ask_soon()
        return moved

    def adopt(self, moved: Moved) -> None:
        """Hear a name that another link gave up."""
        self._subscriptions.adopt(moved)
        self._ask_soon()

    def retry(self) -> None:
        """Ask once more for names that are served here after all."""
        self._subscriptions.retry()
        self._ask_soon()

    def _send(self, connection: Connection, command: Command) -> None:
        # One command for each name, since names of one command would have to be in one slot.
        word = "SSUBSCRIBE" if command.is_subscribe else "SUNSUBSCRIBE"
        connection.send(b"".join([pack(word, name) for name in command.names]))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, REDIRECTIONS):
            self._subscriptions.refuse(getattr(reply, "slot_id", None))
            self._doubt()
            self._see_progress()
            return
        if isinstance(reply, Exception):
            raise reply
        kind, name, message = reply
        if kind == b"smessage":
            if hear := self._subscriptions.hear_of(name):
                hear(message)
        elif kind == b"sunsubscribe" and self._subscriptions.is_unasked(name):
            self._subscriptions.lose(name)
            self._doubt()
        else:
            self._confirm(name)

    def _confirm(self, name: bytes) -> None:
        self._subscriptions.confirm(name)
        if self._subscriptions.take_found(name):
            self._resume([name])
        self._see_progress()
