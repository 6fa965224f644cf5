"""What a client may do in a channel: `decide` is the one rule, and docs/permissions.md is its table.

A valid subscription token takes precedence over it, the `$` prefix included. `insecure` permits everything.
"""

from __future__ import annotations

from msgspec import Struct

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.capabilities import HISTORY, PRESENCE, PUBLISH, SUBSCRIBE, Action, Capabilities
from tocsin_server.core.channel_names import PLAIN, PRIVATE, ChannelRules, Kind, is_limited_to
from tocsin_server.core.tokens import Override
from tocsin_server.errors import (
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    UNKNOWN_CHANNEL,
    Refusal,
    bad_request,
)


class Caller(Struct, frozen=True):
    """What counts of a connection for a decision about one channel."""

    user: str
    """"" is anonymous."""
    is_insecure: bool = False
    capabilities: Capabilities | None = None
    """What its connection token grants."""
    is_subscribed: bool = False
    """Whether it has a live subscription to the channel."""
    allowed: frozenset[Action] = frozenset()
    """What the token of that subscription grants besides."""


def decide(
    action: Action, caller: Caller, channel: str, options: ChannelOptions, kind: Kind
) -> Refusal | None:
    """Return why a client may not do something in a channel; None if it may.

    Subscribing is decided as without a subscription token. Error 108, before all else, where the channel
    does not have the feature. In a channel that is not plain, a client that is neither subscribed nor one
    of its users may do nothing, also where the options permit it to others.
    """
    if not _has_feature(action, options):
        return NOT_AVAILABLE
    if _is_granted(action, caller, channel):
        return None
    if kind is not PLAIN:
        is_its_user = _is_user_of(channel, caller, kind)
        if action is SUBSCRIBE:
            return None if is_its_user else PERMISSION_DENIED
        if not (is_its_user or caller.is_subscribed):
            return PERMISSION_DENIED
    return None if _is_open(action, caller, options) else PERMISSION_DENIED


def decide_by_name(action: Action, caller: Caller, channel: str, kind: Kind) -> Refusal | None:
    """Return why a client may not do something, by the kind and the name of a channel; None if it may.

    A hook that decides in place of the options decides within this.
    """
    may_be_there = kind is PLAIN or caller.is_subscribed or _is_user_of(channel, caller, kind)
    return None if may_be_there or _is_granted(action, caller, channel) else PERMISSION_DENIED


def _is_granted(action: Action, caller: Caller, channel: str) -> bool:
    """Whether a token grants the action, or the server permits everything."""
    if caller.is_insecure or action in caller.allowed:
        return True
    return caller.capabilities is not None and caller.capabilities.allow(action, channel)


def _is_user_of(channel: str, caller: Caller, kind: Kind) -> bool:
    """Whether the name of a channel that is not plain has the caller as its user."""
    return kind is not PRIVATE and bool(caller.user) and is_limited_to(channel, caller.user)


def _has_feature(action: Action, options: ChannelOptions) -> bool:
    if action is HISTORY:
        return options.keeps_history
    return options.presence if action is PRESENCE else True


def _is_open(action: Action, caller: Caller, options: ChannelOptions) -> bool:
    """Whether the options permit an action to every client like this one: anonymous, subscribed, or else."""
    is_subscribed = caller.is_subscribed
    if action is SUBSCRIBE:
        return options.allow_subscribe_for_client if caller.user else options.allow_subscribe_for_anonymous
    if action is PUBLISH:
        if not caller.user:
            return options.allow_publish_for_anonymous
        return options.allow_publish_for_client or (is_subscribed and options.allow_publish_for_subscriber)
    if action is HISTORY:
        if not caller.user:
            return options.allow_history_for_anonymous
        return options.allow_history_for_client or (is_subscribed and options.allow_history_for_subscriber)
    if not caller.user:
        return options.allow_presence_for_anonymous
    return options.allow_presence_for_client or (is_subscribed and options.allow_presence_for_subscriber)


def check_name(channel: str, rules: ChannelRules) -> Refusal | ChannelOptions:
    """Return the options of a channel, or why its name is not valid. The one check of channel names."""
    options, problem = rules.find(channel)
    if problem:
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
