"""The call of publish.lua: what it gets, and the bytes of the command.

Each publication with history makes one, so it is packed by one formatting, and not by the general packer.
What depends on the channel alone, or on its options alone, is packed once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.scripts import PUBLISH

CHANNELS = 1024
"""Of so many channels the packed names are kept: below a megabyte."""

_WORD = b"$%d\r\n%b\r\n"


def pack_word(word: bytes) -> bytes:
    """Encode one word of a command (RESP: its length and its bytes)."""
    return _WORD % (len(word), word)


class ChannelWords(NamedTuple):
    """What all publications of a channel share."""

    meta: str
    pubsub_name: str
    keys: bytes
    """The words of the keys meta and history."""
    arguments: bytes
    """The words of the first arguments: CHANNEL_ARGUMENTS."""


CHANNEL_ARGUMENTS = ("pubsub_name", "epochs")
"""The pub/sub name, and the key of the initial epoch."""


class PublishSettings(NamedTuple):
    """The arguments that follow: what most publications of a namespace share."""

    publish_command: str
    head: bytes
    """The head of the message, up to the stamp."""
    history_size: int = 0
    """0: the channel keeps no history."""
    history_ttl_ms: int = 0
    meta_ttl_ms: int = 0
    trusts_absence: int = 1
    """Whether a missing top proves that there were no publications (see RedisBroker)."""
    may_grow: int = 1
    """Whether the publication may begin a history."""


class PublishWords(NamedTuple):
    """The arguments that follow: what each publication has of its own."""

    body: bytes
    stamp: bytes
    fresh_epoch: bytes
    """The epoch of the history if it has to start over."""
    seen_offset: bytes
    seen_epoch: bytes


class SeldomWords(NamedTuple):
    """The last arguments, which publications without a version and without an idempotency key do not send."""

    version: bytes
    version_epoch: bytes
    result_ttl_ms: bytes
    """How long the result of the idempotency key is kept."""


ARGUMENTS = CHANNEL_ARGUMENTS + PublishSettings._fields + PublishWords._fields + SeldomWords._fields
"""The names of the arguments of publish.lua, in its order."""


class ChannelNames:
    """Packs the names of channels. The mutable state is a cache of the last CHANNELS ones."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.of = lru_cache(CHANNELS)(self._pack)
        """The words of a channel."""

    def _pack(self, channel: str) -> ChannelWords:
        pubsub_name, meta, history = self._keys.of_history(channel)
        epochs = self._keys.epochs(channel)
        keys, arguments = (
            b"".join(pack_word(name.encode()) for name in names)
            for names in ((meta, history), (pubsub_name, epochs))
        )
        return ChannelWords(meta, pubsub_name, keys, arguments)


def pack_publish(
    channel: ChannelWords,
    settings: PublishSettings,
    words: PublishWords,
    seldom: SeldomWords | None,
    first_result: bytes = b"",
) -> bytes:
    """Encode the command. `first_result` is the key of the idempotency key's result. Empty: there is none."""
    body, stamp, fresh_epoch, seen_offset, seen_epoch = words
    return _format(settings, 3 if first_result else 2, len(seldom or ())) % (
        channel.keys,
        pack_word(first_result) if first_result else b"",
        *(channel.arguments, len(body), body, len(stamp), stamp, len(fresh_epoch), fresh_epoch),
        *(len(seen_offset), seen_offset, len(seen_epoch), seen_epoch),
        b"".join(map(pack_word, seldom)) if seldom else b"",
    )


@lru_cache(maxsize=256)  # namespaces have few distinct options
def _format(settings: PublishSettings, keys: int, more: int) -> bytes:
    """The format of a command with these settings, in which the other words are missing."""
    own = len(PublishWords._fields)
    first = [pack_word(word) for word in (b"EVALSHA", PUBLISH.digest.encode(), b"%d" % keys)]
    shared = [pack_word(word if isinstance(word, bytes) else str(word).encode()) for word in settings]
    count = len(first) + keys + len(CHANNEL_ARGUMENTS) + len(shared) + own + more
    return b"".join([b"*%d\r\n" % count, *first, b"%b" * 3, *shared, _WORD * own, b"%b"])
