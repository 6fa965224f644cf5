"""The call of publish.lua: what it gets, and the bytes of the command.

Each publication with history makes one, so it is packed by one formatting, and not by the general packer.
What depends on the channel's options alone is formatted once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tocsin_server.engine.redis.scripts import PUBLISH


class PublishSettings(NamedTuple):
    """The first arguments of publish.lua, in its order: what most publications of a node share."""

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

    pubsub_name: bytes
    body: bytes
    stamp: bytes
    fresh_epoch: bytes
    """The epoch of the history if it has to start over."""
    seen_offset: bytes
    seen_epoch: bytes
    epochs: bytes
    """The key of the initial epoch."""


class SeldomWords(NamedTuple):
    """The last arguments, which publications without a version and without an idempotency key do not send."""

    version: bytes
    version_epoch: bytes
    result_ttl_ms: bytes
    """How long the result of the idempotency key is kept."""


ARGUMENTS = PublishSettings._fields + PublishWords._fields + SeldomWords._fields

_WORD = b"$%d\r\n%b\r\n"


class PublishKeys(NamedTuple):
    """The keys of publish.lua."""

    meta: bytes
    history: bytes
    first_result: bytes = b""
    """The result of the idempotency key. Empty: the publication has no key."""


def pack_publish(
    settings: PublishSettings, keys: PublishKeys, words: PublishWords, seldom: SeldomWords | None
) -> bytes:
    """Encode the command (RESP: a count, then the length and the bytes of each word)."""
    meta, history, first_result = keys
    pubsub_name, body, stamp, fresh_epoch, seen_offset, seen_epoch, epochs = words
    return _format(settings, 3 if first_result else 2, len(seldom or ())) % (
        *(len(meta), meta, len(history), history, _pack(first_result) if first_result else b""),
        *(len(pubsub_name), pubsub_name, len(body), body),
        *(len(stamp), stamp, len(fresh_epoch), fresh_epoch, len(seen_offset), seen_offset),
        *(len(seen_epoch), seen_epoch, len(epochs), epochs),
        b"".join(map(_pack, seldom)) if seldom else b"",
    )


@lru_cache(maxsize=256)  # namespaces have few distinct options
def _format(settings: PublishSettings, keys: int, more: int) -> bytes:
    """The format of a command with these settings, in which the other words are missing."""
    own = len(PublishWords._fields)
    first = [_pack(word) for word in (b"EVALSHA", PUBLISH.digest.encode(), b"%d" % keys)]
    shared = [_pack(word if isinstance(word, bytes) else str(word).encode()) for word in settings]
    count = len(first) + keys + len(shared) + own + more
    return b"".join([b"*%d\r\n" % count, *first, _WORD * 2, b"%b", *shared, _WORD * own, b"%b"])


def _pack(word: bytes) -> bytes:
    return _WORD % (len(word), word)
