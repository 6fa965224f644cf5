"""Who may do what in which channel (protocol §12, §13), as tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tocsin_server.config.options import ChannelOptions
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
from tocsin_server.errors import BAD_REQUEST, NOT_AVAILABLE, PERMISSION_DENIED, UNKNOWN_CHANNEL, Refusal

ADA = Caller("ada")
NOBODY = Caller("")
ANYBODY = Caller("", is_insecure=True)

Permission = Callable[[Caller, ChannelOptions, bool], Refusal | None]
PERMISSIONS: dict[str, Permission] = {
    "publish": may_publish,
    "history": may_read_history,
    "presence": may_read_presence,
}


def options(*allowed: str) -> ChannelOptions:
    """A channel with everything on, where so much is allowed."""
    return ChannelOptions(
        presence=True, history_size=1, history_ttl=1, **{f"allow_{name}": True for name in allowed}
    )


@pytest.mark.parametrize("what", PERMISSIONS)
@pytest.mark.parametrize(
    ("allowed", "of_ada", "of_ada_inside", "of_nobody", "of_nobody_inside"),
    [
        ((), False, False, False, False),
        (("client",), True, True, False, False),
        (("subscriber",), False, True, False, False),
        (("anonymous",), False, False, True, True),
        (("client", "anonymous"), True, True, True, True),
        (("subscriber", "anonymous"), False, True, True, True),
    ],
)
def test_each_permission_has_its_people(
    what: str,
    allowed: tuple[str, ...],
    of_ada: bool,
    of_ada_inside: bool,
    of_nobody: bool,
    of_nobody_inside: bool,
) -> None:
    """Clients are users with a name; subscribers are those of them who are in; nobody has its own switch."""
    channel = options(*(f"{what}_for_{whom}" for whom in allowed))
    may = PERMISSIONS[what]
    answers = [
        may(caller, channel, is_subscribed) is None
        for caller in (ADA, NOBODY)
        for is_subscribed in (False, True)
    ]
    assert answers == [of_ada, of_ada_inside, of_nobody, of_nobody_inside]
    assert may(ANYBODY, channel, False) is None


@pytest.mark.parametrize("what", ["history", "presence"])
@pytest.mark.parametrize("caller", [ADA, ANYBODY])
def test_what_is_off_is_available_to_nobody(what: str, caller: Caller) -> None:
    """Said before anything about permissions."""
    assert PERMISSIONS[what](caller, ChannelOptions(), True) is NOT_AVAILABLE


@pytest.mark.parametrize("what", PERMISSIONS)
def test_permissions_do_not_leak_into_each_other(what: str) -> None:
    """Whoever may do the others may not do this."""
    others = [
        f"{other}_for_{whom}" for other in PERMISSIONS if other != what for whom in ("client", "anonymous")
    ]
    channel = options(*others, "subscribe_for_client", "subscribe_for_anonymous")
    assert PERMISSIONS[what](ADA, channel, True) is PERMISSION_DENIED
    assert PERMISSIONS[what](NOBODY, channel, True) is PERMISSION_DENIED


@pytest.mark.parametrize(
    ("channel", "allowed", "of_ada", "of_nobody"),
    [
        ("news", (), False, False),
        ("news", ("subscribe_for_client",), True, False),
        ("news", ("subscribe_for_anonymous",), False, True),
        ("$news", ("subscribe_for_client", "subscribe_for_anonymous"), False, False),
        ("dialog#ada", (), False, False),
        ("dialog#ada", ("user_limited_channels",), True, False),
        ("dialog#bob", ("user_limited_channels", "subscribe_for_client"), False, False),
        ("dialog#ada,bob", ("user_limited_channels",), True, False),
        ("dialog#", ("user_limited_channels", "subscribe_for_anonymous"), False, False),
        ("$dialog#ada", ("user_limited_channels",), False, False),
        ("news", ("user_limited_channels", "subscribe_for_client"), True, False),
    ],
)
def test_who_may_enter_without_a_token(
    channel: str, allowed: tuple[str, ...], of_ada: bool, of_nobody: bool
) -> None:
    """Private channels nobody, user-limited ones those in their name, others as configured."""
    answers = [may_subscribe(caller, channel, options(*allowed)) for caller in (ADA, NOBODY, ANYBODY)]
    assert [answer is None for answer in answers] == [of_ada, of_nobody, True]
    assert all(answer in (None, PERMISSION_DENIED) for answer in answers)


def test_a_name_is_checked_for_its_length_its_namespace_and_its_form_in_this_order() -> None:
    """And answered with the options that hold for it."""
    digits = ChannelOptions(channel_regex=r"^\d+$")
    rules = ChannelRules(digits, {}, length_limit=9)
    assert check_name("12345", rules) is digits
    assert check_name("x:34567890", rules) is BAD_REQUEST
    assert check_name("x:ü", rules) is UNKNOWN_CHANNEL
    assert check_name("1234x", rules) is BAD_REQUEST
    assert check_name("١٢", rules) is BAD_REQUEST


def test_an_override_changes_what_it_sets_and_nothing_else() -> None:
    """Both ways; the channel's own options stay as they are."""
    channel = ChannelOptions(presence=True, history_size=1, history_ttl=1)
    changed = overridden(channel, Override(presence=Flag(False), force_recovery=Flag(True)))
    assert (changed.presence, changed.force_recovery, changed.history_size) == (False, True, 1)
    assert channel.presence
    for nothing in (None, Override()):
        assert overridden(channel, nothing) is channel
