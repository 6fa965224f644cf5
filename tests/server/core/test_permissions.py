"""Permissions in channels (docs/permissions.md): `decide`, its table, and sessions that follow the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.server.core.permission_table import (
    CALLERS,
    CHANNELS,
    CallerKind,
    needs,
    permission_options,
    rows,
    subsets,
    table,
)
from tests.server.core.playbook import START, context, error, new_connection, opened
from tests.support.tokens import connection_token, subscription_token
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.capabilities import Action
from tocsin_server.core.channel_names import ChannelRules, Kind
from tocsin_server.core.events import Execute, OpenSubscriptions
from tocsin_server.core.permissions import Caller, check_name, decide, overridden
from tocsin_server.core.tokens import Flag, Override
from tocsin_server.errors import NOT_AVAILABLE, UNKNOWN_CHANNEL, Refusal, bad_request

PAGE = (Path(__file__).parents[3] / "docs" / "permissions.md").read_text()
COMMANDS: dict[str, tuple[Action, dict[str, Any]]] = {
    "subscribe": (Action.SUBSCRIBE, {}),
    "publish": (Action.PUBLISH, {"data": 1}),
    "history": (Action.HISTORY, {"limit": 1}),
    "presence": (Action.PRESENCE, {}),
    "presence_stats": (Action.PRESENCE, {}),
}


def test_the_page_has_the_table_that_the_code_makes() -> None:
    """`python -m tests.server.core.permission_table` prints it."""
    assert table() in PAGE


def test_every_cell_of_the_table_is_true_for_each_set_of_options() -> None:
    """No two options together permit what neither of them does, and none forbids what another permits."""
    for kind, caller, cells in rows():
        for action, text in cells.items():
            for groups in subsets():
                options = permission_options(kind, action, groups)
                channel = CHANNELS[kind]
                is_permitted = decide(action, caller.caller(channel), channel, options, kind) is None
                assert is_permitted == needs(text, groups), (kind, caller.name, action, groups)


def _written_rows() -> list[tuple[Kind, CallerKind, dict[str, str]]]:
    """The rows of the page."""
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        kind = next((kind for kind in Kind if cells[0].startswith(f"{kind.value}, `")), None)
        if kind is not None and len(cells) == 6:
            caller = next(caller for caller in CALLERS if caller.name == cells[1])
            found.append((kind, caller, dict(zip(COMMANDS, [*cells[2:], cells[5]], strict=True))))
    return found


@pytest.mark.parametrize(("kind", "caller", "cells"), _written_rows())
def test_a_session_follows_every_cell_of_the_page(
    kind: Kind, caller: CallerKind, cells: dict[str, str]
) -> None:
    """Each command, with every set of options: executed, or refused with 103."""
    for command, text in cells.items():
        action, members = COMMANDS[command]
        for groups in subsets():
            options = permission_options(kind, action, groups)
            outcome = _outcome(kind, caller, options, {command: {"channel": CHANNELS[kind], **members}})
            assert outcome == needs(text, groups), (command, groups)


def _outcome(kind: Kind, caller: CallerKind, options: ChannelOptions, command: dict[str, Any]) -> bool:
    """Whether a session with these options does what a client commands. Everything else is refused."""
    channel = CHANNELS[kind]
    has_personal = kind is Kind.PERSONAL
    session_context = context(options, allow_anonymous=True, personal_channel=has_personal)
    playbook = new_connection(session_context)
    caps = [{"channels": [channel], "allow": ["sub", "pub", "hst", "prs"]}] if caller.has_capability else None
    token = connection_token(caller.user, caps=caps) if caller.user else ""
    playbook >> {"id": 1, "connect": {"token": token}}
    own = f"#{caller.user}"
    if has_personal and caller.user:
        playbook >> opened(own)
        if own == channel:
            playbook >> {"id": 2, "unsubscribe": {"channel": own}}
    if caller.is_subscribed and "subscribe" not in command:
        playbook >> {
            "id": 3,
            "subscribe": {"channel": channel, "token": subscription_token(caller.user, channel)},
        }
        playbook >> opened(channel)
        assert channel in playbook.session.live_channels
    playbook >> {"id": 4, **command}
    if isinstance(playbook.effects[0], Execute | OpenSubscriptions):
        return True
    playbook << [error(4, 103, "permission denied")]
    return False


@pytest.mark.parametrize("action", [Action.HISTORY, Action.PRESENCE])
@pytest.mark.parametrize("is_insecure", [False, True])
def test_a_feature_that_is_off_is_not_available(action: Action, is_insecure: bool) -> None:
    """The refusal comes before every permission."""
    caller = Caller("ada", is_insecure, is_subscribed=True, allowed=frozenset(Action))
    assert decide(action, caller, "news", ChannelOptions(), Kind.PLAIN) is NOT_AVAILABLE


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("action", Action)
def test_an_insecure_server_permits_everything(kind: Kind, action: Action) -> None:
    options = permission_options(kind, action, ())
    assert decide(action, Caller("", is_insecure=True), CHANNELS[kind], options, kind) is None


@pytest.mark.parametrize("action", Action)
def test_permissions_are_independent_of_each_other(action: Action) -> None:
    """All other permissions together do not grant this one."""
    others = {
        f"allow_{other.value}_{group}": True
        for other in Action
        if other is not action
        for group in ("for_client", "for_anonymous")
    }
    options = ChannelOptions(presence=True, history_size=1, history_ttl=1, **others)
    for user in ("ada", ""):
        caller = Caller(user, is_subscribed=True, allowed=frozenset(Action) - {action})
        assert decide(action, caller, "news", options, Kind.PLAIN) is not None


@pytest.mark.parametrize(
    ("channel", "user", "is_permitted"),
    [
        ("dialog#ada", "ada", True),
        ("dialog#ada,bob", "bob", True),
        ("dialog#bob", "ada", False),
        ("dialog#ADA", "ada", False),
        ("dialog#ada ", "ada", False),
        ("dialog#bob#ada", "ada", False),
        ("dialog#", "", False),
        ("dialog#,ada", "", False),
        ("#ada", "ada", True),
        ("#ada,bob", "ada", False),
        ("#", "", False),
        ("##ada", "ada", False),
        ("$dialog#ada", "ada", False),
        ("$#ada", "ada", False),
    ],
)
def test_a_name_permits_exactly_its_users(channel: str, user: str, is_permitted: bool) -> None:
    """Look-alikes permit no user, also where the namespace is open to all."""
    options = ChannelOptions(
        allow_user_limited_channels=True, allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True
    )
    kind = ChannelRules(options, {}).kind_of(channel, options)
    assert (decide(Action.SUBSCRIBE, Caller(user), channel, options, kind) is None) is is_permitted


def test_another_users_personal_channel_is_closed_on_every_way_in() -> None:
    """Also in an open namespace: subscribe, recovery at connect, a longer subscription, publish, history."""
    options = ChannelOptions(
        history_size=10,
        history_ttl=60,
        force_recovery=True,
        **{
            f"allow_{action}_for_{group}": True
            for action in ("subscribe", "publish", "history", "presence")
            for group in ("client", "anonymous")
        },
    )
    playbook = new_connection(context(options, personal_channel=True))
    recovery = {"#42": {"recover": True, "epoch": "x", "offset": 1}, "news": {}}
    playbook >> {"id": 1, "connect": {"token": connection_token("mallory"), "subs": recovery}}
    playbook >> opened("#mallory", "news")
    assert playbook.session.live_channels == ["#mallory", "news"]
    for command in (
        {"subscribe": {"channel": "#42", "recover": True}},
        {"publish": {"channel": "#42", "data": 1}},
        {"history": {"channel": "#42", "limit": 1}},
        {"sub_refresh": {"channel": "#42", "token": subscription_token("mallory", "#42")}},
    ):
        playbook >> {"id": 2, **command} << [error(2, 103, "permission denied")]


def test_a_token_opens_a_user_limited_channel_for_another_user() -> None:
    """The back end that signs it decides."""
    limited = ChannelOptions(allow_user_limited_channels=True)
    playbook = new_connection(context(limited)) >> {"id": 1, "connect": {"token": connection_token("zoe")}}
    token = subscription_token("zoe", "room#ann", exp=int(START.unix) + 60)
    playbook >> {"id": 2, "subscribe": {"channel": "room#ann", "token": token}} >> opened("room#ann")
    assert playbook.session.live_channels == ["room#ann"]


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
