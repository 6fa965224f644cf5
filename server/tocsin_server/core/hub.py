"""Which peers want which channel, and which peers are whose, on this node.

An index over the sessions, nothing more: it holds no fact that a session does not hold too. Synchronous, so
that the first and the last subscriber of a channel are never in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from tocsin_server.core.channel import Channel, SubscriberConnection

Peer = TypeVar("Peer", bound=SubscriberConnection)


class Hub(Generic[Peer]):
    """The index of one node."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel[Peer]] = {}
        self._peers: dict[Peer, str] = {}
        self._users: dict[str, set[Peer]] = {}

    def __len__(self) -> int:
        """How many peers are identified here."""
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        """Every identified peer, as of now."""
        return iter(list(self._peers))

    # -------------------------------------------------------------------------------------------------- users

    def identify(self, peer: Peer, user: str) -> None:
        """`peer` is this user's from now on, until `forget`."""
        self._peers[peer] = user
        self._users.setdefault(user, set()).add(peer)

    def remove(self, peer: Peer) -> None:
        """`peer` is gone. Does nothing if it was never identified."""
        user = self._peers.pop(peer, None)
        if user is None:
            return
        peers = self._users[user]
        peers.discard(peer)
        if not peers:
            del self._users[user]

    def connections_of(self, user: str) -> list[Peer]:
        """The user's peers here, as of now."""
        return list(self._users.get(user, ()))

    @property
    def users(self) -> Iterable[str]:
        """Every user with a peer here."""
        return self._users.keys()

    # ----------------------------------------------------------------------------------------------- channels

    def begin_subscribe(self, name: str) -> Channel[Peer]:
        """Somebody is about to hear a channel. Must be followed by the channel's `admit`, or by `leave`."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        channel.begin_subscribe()
        return channel

    def unsubscribe(self, peer: Peer, name: str) -> bool:
        """`peer` hears a channel no more. True if it was the last one here who did."""
        channel = self.channels[name]
        channel.unsubscribe(peer)
        if channel.is_wanted:
            return False
        del self.channels[name]
        return True
