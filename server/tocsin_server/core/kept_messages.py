"""Messages kept for one subscriber whose client is behind, in place of its socket's queue.

Messages are shared by all subscribers of a channel, so what is kept for many costs what it costs for one.
The mutable state is that of `KeptMessages`; only its channel changes it.
"""

from __future__ import annotations

from collections.abc import Hashable

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel_message import ChannelMessage
from tocsin_server.core.form import PLAIN, Form


class KeptMessages:
    """What is kept, oldest first, as `slow_policy` says.

    With `drop_oldest` every message is kept. With `latest` a publication takes the place of an older one
    with the same key. Above `slow_limit_bytes` the oldest are dropped, but for the newest message.
    """

    __slots__ = (
        "_by_key",
        "_keeps_all",
        "_key_tag",
        "_limit_bytes",
        "_uses_delta",
        "dropped",
        "size",
        "superseded",
    )

    def __init__(self, options: ChannelOptions, form: Form = PLAIN) -> None:
        self._keeps_all = options.slow_policy == "drop_oldest"
        self._key_tag = options.slow_key
        self._limit_bytes = options.slow_limit_bytes
        self._uses_delta = form.uses_delta
        self._by_key: dict[Hashable, ChannelMessage] = {}
        self.size = 0
        """Bytes of the messages that are kept."""
        self.dropped = 0
        """How many messages were dropped for the limit."""
        self.superseded = 0
        """How many publications a newer one with the same key has replaced."""

    @property
    def messages(self) -> list[ChannelMessage]:
        """What is kept, oldest first. None of it is a delta, since those between them may be missing."""
        if self._uses_delta:
            return [message.quoted for message in self._by_key.values()]
        return list(self._by_key.values())

    def add(self, message: ChannelMessage) -> None:
        """Keep a message, and drop older ones above the limit."""
        key = self._key_of(message)
        replaced = self._by_key.pop(key, None)
        if replaced is not None:
            self.size -= replaced.size
            self.superseded += 1
        self._by_key[key] = message
        self.size += message.size
        while self.size > self._limit_bytes and len(self._by_key) > 1:
            self.size -= self._by_key.pop(next(iter(self._by_key))).size
            self.dropped += 1

    def _key_of(self, message: ChannelMessage) -> Hashable:
        publication = message.push.pub
        if self._keeps_all or publication is None:
            return message  # its identity: nothing replaces it
        return (publication.tags or {}).get(self._key_tag, "") if self._key_tag else ""
