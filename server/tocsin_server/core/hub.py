"""An index of one node's connections by user, and of its channels by name.

Which connection is in which channel is a copy of what the sessions hold. Each channel's state is its own.
The mutable state is the index; only the methods of `Hub` change it. They are synchronous, so that a
channel always has exactly one first and one last subscriber.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic

from tocsin_server.core.channel import C, Channel


class Hub(Generic[C]):
    """The index of one node."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel[C]] = {}
        self._connections: dict[C, str] = {}
        self._users: dict[str, set[C]] = {}

    def __len__(self) -> int:
        """Return how many connections have a user here, anonymous ones included."""
        return len(self._connections)

    def __iter__(self) -> Iterator[C]:
        """Iterate over a copy of these connections."""
        return iter(list(self._connections))

    # -------------------------------------------------------------------------------------------------- users

    def identify(self, connection: C, user: str) -> None:
        """Index a connection under its user, until `remove`."""
        self._connections[connection] = user
        self._users.setdefault(user, set()).add(connection)

    def remove(self, connection: C) -> None:
        """Drop a connection from the index by user. Does nothing for one that was not identified."""
        user = self._connections.pop(connection, None)
        if user is None:
            return
        connections = self._users[user]
        connections.discard(connection)
        if not connections:
            del self._users[user]

    def connections_of(self, user: str) -> list[C]:
        """Return a copy of the user's connections here."""
        return list(self._users.get(user, ()))

    @property
    def users(self) -> Iterable[str]:
        """Every user with a connection here."""
        return self._users.keys()

    # ----------------------------------------------------------------------------------------------- channels

    @property
    def channels(self) -> Mapping[str, Channel[C]]:
        """The channels that have a subscriber here or are about to get one, by name."""
        return self._channels

    def begin_subscribe(self, name: str) -> Channel[C]:
        """Return a channel that gets a subscriber; the first one creates it.

        Must be followed by the channel's `go_live`, or by `unsubscribe`.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name)
        channel.begin_subscribe()
        return channel

    def unsubscribe(self, connection: C, name: str) -> bool:
        """Remove a subscriber from a channel. Returns whether it was the last one here."""
        channel = self._channels[name]
        channel.unsubscribe(connection)
        if channel.is_wanted:
            return False
        del self._channels[name]
        return True
