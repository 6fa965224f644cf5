"""Permissions in channels (protocol §12, §13), as tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.permissions import (
    Caller,
    check_name,
    may_publish,
    may_read_history,
    may_read_presence,
    may_subscribe,
    overridden,
)
from tocsin_server.core.tokens import Flag, Override
from tocsin_server.errors import (
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    UNKNOWN_CHANNEL,
    Refusal,
    bad_request,
)

ADA = Caller("ada")
ANONYMOUS = Caller("")
INSECURE = Caller("", is_insecure=True)

Permission = Callable[[Caller, ChannelOptions, bool], Refusal | None]
PERMISSIONS: dict[str, Permission] = {
    "publish": may_publish,
    "history": may_read_history,
    "presence": may_read_presence,
}


def options(*allowed: str) -> ChannelOptions:
    """Return the options of a channel with presence and history, and these permissions."""
    return ChannelOptions(
        presence=True, history_size=1, history_ttl=1, **{f"allow_{name}": True for name in allowed}
    )


@pytest.mark.parametrize("action", PERMISSIONS)
@pytest.mark.parametrize(
    ("allowed", "for_ada", "for_subscribed_ada", "for_anonymous", "for_subscribed_anonymous"),
    [
        ((), False, False, False, False),
        (("client",), True, True, False, False),
        (("subscriber",), False, True, False, False),
        (("anonymous",), False, False, True, True),
        (("client", "anonymous"), True, True, True, True),
        (("subscriber", "anonymous"), False, True, True, True),
    ],
)
def test_each_permission_applies_to_its_group(
    action: str,
    allowed: tuple[str, ...],
    for_ada: bool,
    for_subscribed_ada: bool,
    for_anonymous: bool,
    for_subscribed_anonymous: bool,
) -> None:
    """`client`: users with a name; `subscriber`: those with a subscription; `anonymous`: the others."""
    channel = options(*(f"{action}_for_{group}" for group in allowed))
    permit = PERMISSIONS[action]
    decisions = [
        permit(caller, channel, is_subscribed) is None
        for caller in (ADA, ANONYMOUS)
        for is_subscribed in (False, True)
    ]
    assert decisions == [for_ada, for_subscribed_ada, for_anonymous, for_subscribed_anonymous]
    assert permit(INSECURE, channel, False) is None


@pytest.mark.parametrize("action", ["history", "presence"])
@pytest.mark.parametrize("caller", [ADA, INSECURE])
def test_a_feature_that_is_off_is_not_available(action: str, caller: Caller) -> None:
    """The refusal comes before every permission."""
    assert PERMISSIONS[action](caller, ChannelOptions(), True) is NOT_AVAILABLE


@pytest.mark.parametrize("action", PERMISSIONS)
def test_permissions_are_independent_of_each_other(action: str) -> None:
    """All other permissions together do not grant this one."""
    others = [
        f"{other}_for_{group}"
        for other in PERMISSIONS
        if other != action
        for group in ("client", "anonymous")
    ]
    channel = options(*others, "subscribe_for_client", "subscribe_for_anonymous")
    assert PERMISSIONS[action](ADA, channel, True) is PERMISSION_DENIED
    assert PERMISSIONS[action](ANONYMOUS, channel, True) is PERMISSION_DENIED


@pytest.mark.parametrize(
    ("channel", "allowed", "for_ada", "for_anonymous"),
    [
        ("news", (), False, False),
        ("news", ("subscribe_for_client",), True, False),
        ("news", ("subscribe_for_anonymous",), False, True),
        ("$news", ("subscribe_for_client", "subscribe_for_anonymous"), False, False),
        ("dialog#ada", (), False, False),
        ("dialog#ada", ("user_limited_channels",), True, False),
        ("dialog#bob", ("user_limited_channels", "subscribe_for_client"), False, False),
        ("dialog#ada,bob", ("user_limited_channels",), True, False),
        ("#ada", ("user_limited_channels",), True, False),
        ("#ada,bob", ("user_limited_channels",), False, False),
        ("dialog#bob#ada", ("user_limited_channels",), False, False),
        ("dialog#", ("user_limited_channels", "subscribe_for_anonymous"), False, False),
        ("$dialog#ada", ("user_limited_channels",), False, False),
        ("news", ("user_limited_channels", "subscribe_for_client"), True, False),
    ],
)
def test_subscribing_without_a_token(
    channel: str, allowed: tuple[str, ...], for_ada: bool, for_anonymous: bool
) -> None:
    """Private channels are closed; user-limited ones are for the users in their name."""
    decisions = [may_subscribe(caller, channel, options(*allowed)) for caller in (ADA, ANONYMOUS, INSECURE)]
    assert [decision is None for decision in decisions] == [for_ada, for_anonymous, True]
    assert all(decision in (None, PERMISSION_DENIED) for decision in decisions)


def test_a_channel_name_is_checked_by_length_then_namespace_then_form() -> None:
    """The result of a valid name is its channel's options."""
    digits = ChannelOptions(channel_regex=r"^\d+$")
    rules = ChannelRules(digits, {}, length_limit=9)
    assert check_name("12345", rules) is digits
    assert check_name("x:34567890", rules) == _bad("is longer than 9 bytes")
    assert check_name("x:ü", rules) is UNKNOWN_CHANNEL
    assert check_name("1234x", rules) == _bad("does not match channel_regex")
    assert check_name("١٢", rules) == _bad("has characters beyond ASCII")


def _bad(problem: str) -> Refusal:
    return bad_request(f"the channel's name {problem}")


def test_an_override_changes_only_the_options_it_sets() -> None:
    """The channel's own options stay unchanged."""
    channel = ChannelOptions(presence=True, history_size=1, history_ttl=1)
    changed = overridden(channel, Override(presence=Flag(False), force_recovery=Flag(True)))
    assert (changed.presence, changed.force_recovery, changed.history_size) == (False, True, 1)
    assert channel.presence
    for override in (None, Override()):
        assert overridden(channel, override) is channel
