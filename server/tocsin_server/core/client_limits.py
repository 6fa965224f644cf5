"""What clients may use of a node per second: commands, errors, new channels and publications.

What one connection has used is a number in its session. What a user's connections on this node have used
together, what was published into a channel, and what all clients have used, is here. The mutable state is
that of `ClientLimits`, and only its methods change it.

Anonymous connections have no user in common, so each of them counts as a user of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, Self

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core.channel_names import section_of
from tocsin_server.core.rate_limit import NEVER_USED, RateLimit
from tocsin_server.core.rate_limits import RateLimits
from tocsin_server.errors import Refusal
from tocsin_server.protocol.messages import ClientInfo

EXCESS = 2
"""A client that sends this many times the burst, most of it refused, is disconnected."""


_RATES = (
    "command_rate",
    "new_channel_rate",
    "user_command_rate",
    "user_publish_rate",
    "user_new_channel_rate",
)


class Exceeded(NamedTuple):
    """A limit that refuses something."""

    limit: str
    """Its key in the configuration."""
    refusal: Refusal
    is_final: bool = False
    """The client has gone on for so long that it is disconnected (3013)."""


def _too_many(limit: str, rate: float, what: str, where: str) -> Exceeded:
    reason = f"more than {rate:g} {what} a second {where}"
    return Exceeded(limit, errors.because(errors.TOO_MANY_REQUESTS, reason))


def _key(info: ClientInfo) -> Hashable:
    return info.user or ("", info.client)


class ClientLimits:
    """The limits of a node's clients, and what users, channels and the node have used of them."""

    def __init__(self, client: ClientOptions, node: LimitOptions) -> None:
        self.commands = RateLimit(client.command_rate, client.command_burst)
        self.commands_at_most = RateLimit(client.command_rate, EXCESS * client.command_burst)
        self.errors = RateLimit(client.error_limit / client.error_window, client.error_limit)
        self.new_channels = RateLimit(client.new_channel_rate, client.new_channel_burst)
        self._user_commands = RateLimit(client.user_command_rate, client.user_command_burst)
        self._user_commands_at_most = RateLimit(client.user_command_rate, EXCESS * client.user_command_burst)
        self._user_new_channels = RateLimit(client.user_new_channel_rate, client.user_new_channel_burst)
        self._user_publications = RateLimit(client.user_publish_rate, client.user_publish_burst)
        self._node_new_channels = RateLimit(node.new_channel_rate, node.new_channel_burst)
        self._commands_of_users = RateLimits()
        self._new_channels_of_users = RateLimits()
        self._publications_of_users = RateLimits()
        self._publications_in_channels = RateLimits()
        self._node_new_channels_full_at = NEVER_USED
        self.too_many_commands = _too_many(
            "client.command_rate", client.command_rate, "commands", "from this connection"
        )
        self.far_too_many_commands = self.too_many_commands._replace(is_final=True)
        self.too_many_new_channels = _too_many(
            "client.new_channel_rate", client.new_channel_rate, "new channels", "from this connection"
        )
        self._too_many_of_user = _too_many(
            "client.user_command_rate", client.user_command_rate, "commands", "from this user"
        )
        self._far_too_many_of_user = self._too_many_of_user._replace(is_final=True)
        self._too_many_new_channels_of_user = _too_many(
            "client.user_new_channel_rate", client.user_new_channel_rate, "new channels", "from this user"
        )
        self._too_many_new_channels_of_node = _too_many(
            "limits.new_channel_rate", node.new_channel_rate, "new channels", "on this node"
        )
        self._too_many_publications_of_user = _too_many(
            "client.user_publish_rate", client.user_publish_rate, "publications", "from this user"
        )

    @classmethod
    def unlimited(cls) -> Self:
        """Limits that refuse nothing: for sessions whose commands are not executed."""
        rates = dict.fromkeys(_RATES, 0)
        return cls(ClientOptions.model_validate(rates), LimitOptions(new_channel_rate=0))

    def take_command(self, info: ClientInfo, now: float) -> Exceeded | None:
        """Use one of a user's commands. Those that are refused count too, up to EXCESS times the burst."""
        user = _key(info)
        if self._commands_of_users.take(user, self._user_commands, now):
            return None
        if self._commands_of_users.take(user, self._user_commands_at_most, now):
            return self._too_many_of_user
        return self._far_too_many_of_user

    def take_new_channels(self, info: ClientInfo, count: int, now: float) -> Exceeded | None:
        """Use some of the new channels of a user and of the node."""
        limit, of_user = self._node_new_channels, self._user_new_channels
        taken = limit.take(self._node_new_channels_full_at, now, min(count, limit.burst))
        if taken is None:
            return self._too_many_new_channels_of_node
        if not self._new_channels_of_users.take(_key(info), of_user, now, min(count, of_user.burst)):
            return self._too_many_new_channels_of_user
        self._node_new_channels_full_at = taken
        return None

    def take_publication(
        self, info: ClientInfo, channel: str, options: ChannelOptions, now: float
    ) -> Exceeded | None:
        """Use one of a user's publications, and one of a channel's."""
        if not self._publications_of_users.take(_key(info), self._user_publications, now):
            return self._too_many_publications_of_user
        if not options.publish_rate:
            return None
        limit = RateLimit(options.publish_rate, options.publish_burst)
        if not self._publications_in_channels.take(channel, limit, now):
            key = f"{section_of(channel)}.publish_rate"
            return _too_many(key, limit.rate, "publications", "in this channel")
        return None
