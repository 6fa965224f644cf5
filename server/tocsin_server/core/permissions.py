"""What a user may do in a channel, by the channel's options (protocol §12, §13).

Each function returns the refusal, or None if the action is permitted. A valid subscription token takes
precedence over every other rule, the `$` prefix included. `insecure` permits everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel_names import ChannelRules, is_limited, is_limited_to, is_private
from tocsin_server.core.tokens import Override
from tocsin_server.errors import (
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    UNKNOWN_CHANNEL,
    Refusal,
    bad_request,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A connection's user ("" is anonymous), and whether the server runs with `insecure`."""

    user: str
    is_insecure: bool = False


def may_subscribe(caller: Caller, channel: str, options: ChannelOptions) -> Refusal | None:
    """Check whether a client may subscribe to a channel without a subscription token."""
    if caller.is_insecure:
        return None
    if is_private(channel):
        return PERMISSION_DENIED
    if options.allow_user_limited_channels and is_limited(channel):
        return None if caller.user and is_limited_to(channel, caller.user) else PERMISSION_DENIED
    is_allowed = _allowed(caller, options.allow_subscribe_for_client, options.allow_subscribe_for_anonymous)
    return None if is_allowed else PERMISSION_DENIED


def may_publish(caller: Caller, options: ChannelOptions, is_subscribed: bool) -> Refusal | None:
    """Check whether a client may publish into a channel."""
    return _permit(
        caller,
        options.allow_publish_for_client,
        options.allow_publish_for_subscriber and is_subscribed,
        options.allow_publish_for_anonymous,
    )


def may_read_history(caller: Caller, options: ChannelOptions, is_subscribed: bool) -> Refusal | None:
    """Check whether a client may read a channel's history; error 108 where the channel keeps none."""
    if not options.keeps_history:
        return NOT_AVAILABLE
    return _permit(
        caller,
        options.allow_history_for_client,
        options.allow_history_for_subscriber and is_subscribed,
        options.allow_history_for_anonymous,
    )


def may_read_presence(caller: Caller, options: ChannelOptions, is_subscribed: bool) -> Refusal | None:
    """Check whether a client may read a channel's presence; error 108 where presence is off."""
    if not options.presence:
        return NOT_AVAILABLE
    return _permit(
        caller,
        options.allow_presence_for_client,
        options.allow_presence_for_subscriber and is_subscribed,
        options.allow_presence_for_anonymous,
    )


def check_name(channel: str, rules: ChannelRules) -> Refusal | ChannelOptions:
    """Return the options of a channel, or why its name is not valid. The one check of channel names."""
    options = rules.options_for(channel)
    if problem := rules.problem_of(channel, options):
        return bad_request(f"the channel's name {problem}")
    return UNKNOWN_CHANNEL if options is None else options


def overridden(options: ChannelOptions, override: Override | None) -> ChannelOptions:
    """Return the options of one subscription: the channel's, with those that a token or API call replaces."""
    if override is None:
        return options
    changes = {
        name: flag.value
        for name in override.__struct_fields__
        if (flag := getattr(override, name)) is not None
    }
    return options.model_copy(update=changes) if changes else options


def _permit(caller: Caller, for_client: bool, for_subscriber: bool, for_anonymous: bool) -> Refusal | None:
    if caller.is_insecure or _allowed(caller, for_client or for_subscriber, for_anonymous):
        return None
    return PERMISSION_DENIED


def _allowed(caller: Caller, for_users: bool, for_anonymous: bool) -> bool:
    return for_users if caller.user else for_anonymous
