"""Channel names and the options that apply to them (protocol §13).

$news              private: a client subscribes only with a token
chat:room          namespace "chat"
dialog#17,42       user-limited: users 17 and 42
#17                personal channel of user 17
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tocsin_server.config.options import ChannelOptions

PRIVATE_PREFIX = "$"
NAMESPACE_BOUNDARY = ":"
USER_BOUNDARY = "#"
USER_SEPARATOR = ","


def namespace_of(channel: str) -> str | None:
    """Return the namespace that a channel name begins with; None for a channel without one."""
    name, boundary, _ = channel.removeprefix(PRIVATE_PREFIX).partition(NAMESPACE_BOUNDARY)
    return name if boundary else None


def is_private(channel: str) -> bool:
    """Whether a client needs a subscription token, however open the namespace is."""
    return channel.startswith(PRIVATE_PREFIX)


def limited_to(channel: str) -> frozenset[str] | None:
    """Return the users that a user-limited name lists; None for any other name."""
    _, boundary, users = channel.rpartition(USER_BOUNDARY)
    return frozenset(users.split(USER_SEPARATOR)) if boundary else None


def personal_channel(user: str, namespace: str = "") -> str:
    """Return the name of a user's personal channel."""
    prefix = f"{namespace}{NAMESPACE_BOUNDARY}" if namespace else ""
    return f"{prefix}{USER_BOUNDARY}{user}"


class ChannelRules:
    """The options of every channel, from the configuration. Immutable."""

    def __init__(
        self, default: ChannelOptions, namespaces: Mapping[str, ChannelOptions], length_limit: int = 255
    ) -> None:
        self._default = default
        self._namespaces = dict(namespaces)
        self._length_limit = length_limit
        self._patterns = {
            options.channel_regex: re.compile(options.channel_regex)
            for options in (default, *namespaces.values())
            if options.channel_regex
        }

    def options_for(self, channel: str) -> ChannelOptions | None:
        """Return the options of a channel; None if its namespace is not configured."""
        namespace = namespace_of(channel)
        return self._default if namespace is None else self._namespaces.get(namespace)

    def is_too_long(self, channel: str) -> bool:
        """Whether a name has more bytes than the limit."""
        return len(channel.encode(errors="surrogatepass")) > self._length_limit

    def is_well_formed(self, channel: str, options: ChannelOptions) -> bool:
        """Whether a name is ASCII and, after its namespace, matches the configured `channel_regex`."""
        if not channel.isascii():
            return False
        if not options.channel_regex:
            return True
        rest = channel.removeprefix(PRIVATE_PREFIX)
        rest = rest.partition(NAMESPACE_BOUNDARY)[2] if NAMESPACE_BOUNDARY in rest else rest
        return self._patterns[options.channel_regex].search(rest) is not None
