"""The call of publish.lua: what it gets, and the bytes of the command.

Each publication with history makes one, so it is packed by one `join`, and not by the general packer.
What depends on the channel and its options alone is packed once:

    beginning: the script and its keys, CHANNEL_ARGUMENTS, PublishSettings | OWN_ARGUMENTS | SeldomWords
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.scripts import PUBLISH
from tocsin_server.engine.redis.seen_positions import UNSEEN, SeenPosition
from tocsin_server.protocol.messages import NO_JSON

CHANNELS = 1024
"""Of so many channels the packed names are kept: below a megabyte."""

CHANNEL_ARGUMENTS = ("pubsub_name", "epochs")
"""The first arguments: the pub/sub name, and the key of the initial epoch."""


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


OWN_ARGUMENTS = ("body", "stamp", "fresh_epoch", "seen_offset", "seen_epoch")
"""The arguments that follow: what each publication has of its own.

`fresh_epoch` is the epoch of the history if it has to start over.
"""


class SeldomWords(NamedTuple):
    """The last arguments, which publications without a version and without an idempotency key do not send."""

    version: int
    version_epoch: str
    result_ttl_ms: int
    """How long the result of the idempotency key is kept."""


ARGUMENTS = CHANNEL_ARGUMENTS + PublishSettings._fields + OWN_ARGUMENTS + SeldomWords._fields
"""The names of the arguments of publish.lua, in its order."""


PublishState = tuple[bytes, bool, bool, bool]
"""What the settings depend on, besides the options of the channel.

The head of the message, whether it is stored, `trusts_absence` and `may_grow`.
"""

SettingsOf = Callable[[ChannelOptions, PublishState], PublishSettings]


def pack_words(*words: bytes) -> bytes:
    """Encode words of a command (RESP: the length and the bytes of each)."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


_UNSEEN_WORDS = pack_words(b"0", b"")


@lru_cache(maxsize=1024)
def _size_of(word: int) -> bytes:
    """What precedes a word of so many bytes."""
    return b"$%d\r\n" % word


class ChannelWords:
    """What the publications of a channel share.

    The mutable state is what follows from the options of the channel, and the words that were packed last,
    with the state that they are for.
    """

    __slots__ = (
        *("_beginning", "_names", "_settings", "_settings_of", "_state"),
        *("delta_head", "head", "keeps_history", "keys", "meta", "options", "pubsub_name"),
    )

    def __init__(self, keys: Keys, settings_of: SettingsOf, channel: str) -> None:
        self.pubsub_name, self.meta, history = keys.of_history(channel)
        self.keys = pack_words(self.meta.encode(), history.encode())
        self._names = pack_words(self.pubsub_name.encode(), keys.epochs(channel).encode())
        self._settings_of = settings_of
        self.options: ChannelOptions | None = None
        self.keeps_history = False
        self.head = self.delta_head = encoding.PUBLICATION
        """The heads of the messages of a publication, and of one that is published with `delta`."""
        self._state: PublishState | None = None
        self._settings = self._beginning = b""

    def use_options(self, options: ChannelOptions) -> None:
        """Use the options of the channel from now on. To read them for each publication would take long."""
        self.options = options
        self.keeps_history = options.keeps_history
        self.head, self.delta_head = (
            encoding.DELTA_PUBLICATION if one.may_be_delta(options) else encoding.PUBLICATION
            for one in (NewPublication(NO_JSON), NewPublication(NO_JSON, delta=True))
        )
        self._state = None

    def beginning(self, state: PublishState) -> bytes:
        """The words up to OWN_ARGUMENTS, if no SeldomWords follow. The options must have been set."""
        if state != self._state:
            self._pack(state)
        return self._beginning

    def seldom_beginning(self, state: PublishState, first_result: str) -> bytes:
        """The same if SeldomWords follow.

        `first_result` is the key of the idempotency key's result. Empty: there is none.
        """
        if state != self._state:
            self._pack(state)
        count, result = (3, pack_words(first_result.encode())) if first_result else (2, b"")
        script = _packed_script(count, len(SeldomWords._fields))
        return b"".join((script, self.keys, result, self._names, self._settings))

    def _pack(self, state: PublishState) -> None:
        if self.options is None:
            raise ValueError("the options of the channel are not known")
        settings = self._settings_of(self.options, state)
        words = [word if isinstance(word, bytes) else str(word).encode() for word in settings]
        self._settings = pack_words(*words)
        self._beginning = b"".join((_packed_script(2, 0), self.keys, self._names, self._settings))
        self._state = state


class ChannelNames:
    """Packs the names of channels. The mutable state is a cache of the last CHANNELS ones."""

    def __init__(self, keys: Keys, settings_of: SettingsOf) -> None:
        self.of = lru_cache(CHANNELS)(lambda channel: ChannelWords(keys, settings_of, channel))
        """The words of a channel."""


def pack_publish(
    beginning: bytes,
    body: bytes,
    stamp: bytes,
    fresh_epoch: bytes,
    seen: SeenPosition,
    seldom: SeldomWords | None = None,
) -> bytes:
    """Encode the command."""
    seen_words = _UNSEEN_WORDS if seen is UNSEEN else pack_words(b"%d" % seen.offset, seen.epoch.encode())
    body_size, stamp_size, epoch_size = _size_of(len(body)), _size_of(len(stamp)), _size_of(len(fresh_epoch))
    seldom_words = _pack_seldom(seldom) if seldom else b""
    own = (body_size, body, b"\r\n", stamp_size, stamp, b"\r\n", epoch_size, fresh_epoch, b"\r\n")
    return b"".join((beginning, *own, seen_words, seldom_words))


def _pack_seldom(words: SeldomWords) -> bytes:
    """The last words. Those without a version are the same for all publications of a source."""
    return _pack_unversioned(words.result_ttl_ms) if words.version == 0 else _pack_texts(words)


def _pack_texts(words: SeldomWords) -> bytes:
    return pack_words(*(str(word).encode() for word in words))


@lru_cache
def _pack_unversioned(result_ttl_ms: int) -> bytes:
    """The last words without a version epoch, which may be long, and which counts only beside a version."""
    return _pack_texts(SeldomWords(0, "", result_ttl_ms))


@lru_cache
def _packed_script(keys: int, more: int) -> bytes:
    """The first words of a command with so many keys, and so many words after OWN_ARGUMENTS."""
    arguments = len(ARGUMENTS) - len(SeldomWords._fields) + more
    first = (b"EVALSHA", PUBLISH.digest.encode(), b"%d" % keys)
    return b"*%d\r\n" % (len(first) + keys + arguments) + pack_words(*first)
