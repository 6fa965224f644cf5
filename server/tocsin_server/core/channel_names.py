"""Channel names and the options that apply to them (protocol §13).

$news              private: a client subscribes only with a token
chat:room          namespace "chat"
dialog#17,42       user-limited: users 17 and 42
#17                personal channel of user 17
chat:#17           the same in namespace "chat"

The ids of users come from outside, and may have every character. A personal channel has the whole rest of
its name as the id of its one user, so that no separator in an id counts. The list of a user-limited name has
ids in which separators, "%" and letters beyond ASCII are percent-encoded.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from urllib.parse import quote

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.patterns import LinearPattern

CACHED_NAMES = 4096
"""Of how many valid names is kept what applies to them."""

PRIVATE_PREFIX = "$"
NAMESPACE_BOUNDARY = ":"
USER_BOUNDARY = "#"
USER_SEPARATOR = ","

_NOT_ENCODED = "".join(set(string.punctuation + " ") - {"%", USER_BOUNDARY, USER_SEPARATOR})


class Kind(Enum):
    """Who may enter a channel without a subscription token, by its name."""

    PLAIN = "plain"
    """Every client that the options permit."""
    PRIVATE = "private"
    """None."""
    USER_LIMITED = "user-limited"
    """The users in its name."""
    PERSONAL = "personal"
    """The one user that its name has."""


PRIVATE, PLAIN = Kind.PRIVATE, Kind.PLAIN
"""The kinds of nearly all channels. Members of enums are slow to read from their class in Python 3.11."""


def namespace_of(channel: str) -> str | None:
    """Return the namespace that a channel name begins with; None for a channel without one.

    No namespace has a `#` in its name, so a `:` after one belongs to the id of a user.
    """
    name, boundary, _ = channel.removeprefix(PRIVATE_PREFIX).partition(NAMESPACE_BOUNDARY)
    return name if boundary and USER_BOUNDARY not in name else None


def section_of(channel: str) -> str:
    """Return the section of the configuration that has a channel's options, as the keys of limits name it."""
    namespace = namespace_of(channel)
    return "channels" if namespace is None else f"namespaces.{namespace}"


def _after_namespace(channel: str) -> str:
    rest = channel.removeprefix(PRIVATE_PREFIX)
    namespace = namespace_of(channel)
    return rest if namespace is None else rest[len(namespace) + 1 :]


def is_personal(channel: str) -> bool:
    """Whether a name is that of a user's personal channel."""
    return _after_namespace(channel).startswith(USER_BOUNDARY)


def encoded_user(user: str) -> str:
    """Return a user's id as the list of a user-limited name has it."""
    return quote(user, safe=_NOT_ENCODED, errors="surrogatepass")


def is_private(channel: str) -> bool:
    """Whether a client needs a subscription token, however open the namespace is."""
    return channel.startswith(PRIVATE_PREFIX)


def is_limited_to(channel: str, user: str) -> bool:
    """Whether a name is the user's personal channel, or lists the user."""
    room, boundary, users = _after_namespace(channel).partition(USER_BOUNDARY)
    if not boundary or room:
        return bool(boundary) and encoded_user(user) in users.split(USER_SEPARATOR)
    return user == users


def personal_channel(user: str, namespace: str = "") -> str:
    """Return the name of a user's personal channel."""
    prefix = f"{namespace}{NAMESPACE_BOUNDARY}" if namespace else ""
    return f"{prefix}{USER_BOUNDARY}{user}"


class ChannelRules:
    """The options of every channel, from the configuration. Immutable, apart from what it keeps of names."""

    def __init__(
        self,
        default: ChannelOptions,
        namespaces: Mapping[str, ChannelOptions],
        length_limit: int = 255,
        personal_namespace: str | None = None,
    ) -> None:
        """`personal_namespace` is that of the users' personal channels: "" for `#42`; None without any."""
        self._default = default
        self._namespaces = dict(namespaces)
        self._length_limit = length_limit
        self._personal_namespace = personal_namespace
        self._found = lru_cache(CACHED_NAMES)(self._find)
        self._patterns = {
            options.channel_regex: LinearPattern(options.channel_regex)
            for options in (default, *namespaces.values())
            if options.channel_regex
        }

    def find(self, channel: str) -> tuple[ChannelOptions | None, str]:
        """Return the options of a channel and what is wrong with its name, as the methods below do."""
        return self._found(channel) if len(channel) <= self._length_limit else self._find(channel)

    def _find(self, channel: str) -> tuple[ChannelOptions | None, str]:
        options = self.options_for(channel)
        return options, self.problem_of(channel, options)

    def options_for(self, channel: str) -> ChannelOptions | None:
        """Return the options of a channel; None if its namespace is not configured."""
        namespace = namespace_of(channel)
        return self._default if namespace is None else self._namespaces.get(namespace)

    def kind_of(self, channel: str, options: ChannelOptions) -> Kind:
        """Return the kind of a channel with these options.

        A `#` limits a channel to users where `allow_user_limited_channels` is set, and in personal channels.
        """
        if channel.startswith(PRIVATE_PREFIX):
            return PRIVATE
        if USER_BOUNDARY not in channel:
            return PLAIN
        is_named_personal = is_personal(channel)
        if options.allow_user_limited_channels:
            return Kind.PERSONAL if is_named_personal else Kind.USER_LIMITED
        if is_named_personal and (namespace_of(channel) or "") == self._personal_namespace:
            return Kind.PERSONAL
        return PLAIN

    def is_too_long(self, channel: str) -> bool:
        """Whether a name has more bytes than the limit."""
        return len(channel.encode(errors="surrogatepass")) > self._length_limit

    def problem_of(self, channel: str, options: ChannelOptions | None) -> str:
        """Return what is wrong with a name, as the end of a sentence; empty if it is valid.

        `options` are those of the channel, if its namespace is known. The id of a personal channel's user may
        have letters beyond ASCII.
        """
        if self.is_too_long(channel):
            return f"is longer than {self._length_limit} bytes"
        if options is None:
            return ""
        if not (channel.isascii() or is_personal(channel)):
            return "has characters beyond ASCII"
        if not _is_encodable(channel):
            return "has half of a surrogate pair"
        if not options.channel_regex:
            return ""
        pattern = self._patterns[options.channel_regex]
        return "" if pattern.is_found_in(_after_namespace(channel)) else "does not match channel_regex"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
