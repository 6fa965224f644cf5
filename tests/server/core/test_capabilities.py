"""Capabilities of connection tokens (docs/permissions.md): patterns, the first match, refreshes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from tests.server.core.playbook import (
    Closing,
    Opening,
    Playbook,
    connected,
    context,
    error,
    new_connection,
    opened,
    unsubscribe_push,
)
from tests.support.tokens import connection_token, subscription_token
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.capabilities import Action, Capabilities, Capability, capabilities
from tocsin_server.core.events import Execute

CLOSED = ChannelOptions(presence=True, history_size=10, history_ttl=60)


def granted(*entries: dict[str, Any]) -> Capabilities:
    """The capabilities of a claim."""
    return Capabilities(json.decode(json.encode(entries), type=list[Capability]))


def names(pattern: str, channel: str) -> bool:
    """Whether a pattern grants a channel."""
    return granted({"channels": [pattern], "allow": ["sub"]}).allow(Action.SUBSCRIBE, channel)


@pytest.mark.parametrize(
    ("pattern", "granted_names", "others"),
    [
        ("news", ["news"], ["news:1", "new", "$news", ""]),
        ("news:*", ["news:", "news:1", "news:a:b"], ["news", "$news:1", "news:#1", "xnews:1"]),
        ("*", ["news", "chat:1", ""], ["$news", "#ann", "room#ann", "chat:#ann", "$#ann"]),
        ("*:1", ["news:1", ":1"], ["news:12", "$news:1"]),
        ("a*b*c", ["abc", "axbxc", "abbc"], ["ac", "abcd", "acb"]),
        ("ab*ba", ["abba", "abxba"], ["aba"]),
        ("**", ["", "a"], ["$", "#"]),
        ("$*", ["$", "$news"], ["news", "$#ann"]),
        ("$news:*", ["$news:1"], ["news:1"]),
        ("#*", ["#ann", "#"], ["##ann", "$#ann", "room#ann"]),
        ("room#*", ["room#ann,bob"], ["room", "room##ann", "$room#ann"]),
        ("*#ann", ["#ann", "room#ann", "chat:#ann"], ["#anna", "##ann"]),
        ("a?[b]{c}\\*", ["a?[b]{c}\\", "a?[b]{c}\\x"], ["axbc"]),
    ],
)
def test_a_pattern_grants_exactly_these_names(
    pattern: str, granted_names: list[str], others: list[str]
) -> None:
    """A star matches neither the `$` of a private channel nor any `#`."""
    assert [name for name in [*granted_names, *others] if names(pattern, name)] == granted_names


@given(pattern=st.text("ab*", max_size=8), name=st.text("ab", max_size=8))
def test_a_pattern_without_marks_matches_as_fnmatch_does(pattern: str, name: str) -> None:
    assert names(pattern, name) == fnmatchcase(name, pattern)


def test_many_stars_are_matched_quickly() -> None:
    """A pattern that backtracks would never finish."""
    assert not names("*a" * 1000 + "b", "a" * 5000)


def test_the_first_entry_with_a_matching_pattern_decides() -> None:
    """An entry for fewer channels can grant less than one for more."""
    found = granted(
        {"channels": ["news:1"], "allow": ["sub"]},
        {"channels": ["news:*", "chat"], "allow": ["subscribe", "publish"], "match": "wildcard"},
    )
    assert [found.allow(Action.PUBLISH, name) for name in ("news:1", "news:2", "chat")] == [False, True, True]


def test_connections_with_the_same_claim_share_its_capabilities() -> None:
    """So a claim costs the memory of an idle connection nothing, and an absent one nothing at all."""
    claim = (Capability(("news:*",), ("sub",)),)
    assert capabilities(claim) is capabilities((Capability(("news:*",), ("sub",)),))
    assert capabilities(()) is None


@pytest.mark.parametrize(
    "caps",
    [
        [{"channels": ["^x$"], "match": "regex", "allow": ["sub"]}],
        [{"channels": ["x"], "allow": ["all"]}],
        [{"channels": "x", "allow": ["sub"]}],
        [{"allow": ["sub"]}],
        {"channels": ["x"], "allow": ["sub"]},
        [{"channels": ["x"] * 101, "allow": ["sub"]}],
        [{"channels": ["x"], "allow": ["sub"]}] * 101,
    ],
)
def test_a_claim_that_is_not_understood_makes_the_token_invalid(caps: Any) -> None:
    """To leave an entry out would change which one is the first."""
    playbook = new_connection() >> {"id": 1, "connect": {"token": connection_token("ada", caps=caps)}}
    assert "3500" in str(playbook.effects[0])


def test_the_largest_claim_is_accepted() -> None:
    caps = [{"channels": ["x"] * 100, "allow": ["sub"]}] * 100
    connected(caps=caps)


def _with(*entries: dict[str, Any], **claims: Any) -> Playbook:
    return connected(context(CLOSED), caps=list(entries), **claims)


def test_one_token_grants_a_whole_namespace() -> None:
    """The rights are those of its entry, and nothing beside it is open."""
    playbook = _with({"channels": ["n*"], "allow": ["sub", "hst", "prs"]})
    playbook >> {"id": 2, "subscribe": {"channel": "news"}} << [Opening("news")]
    playbook >> opened("news")
    playbook >> {"id": 3, "publish": {"channel": "news", "data": 1}} << [error(3, 103, "permission denied")]
    for command in ({"history": {"channel": "nice"}}, {"presence": {"channel": "nice"}}):
        playbook = _with({"channels": ["n*"], "allow": ["sub", "hst", "prs"]}) >> {"id": 4, **command}
        assert isinstance(playbook.effects[0], Execute)
    playbook = _with({"channels": ["n*"], "allow": ["sub"]})
    playbook >> {"id": 5, "subscribe": {"channel": "$news"}} << [error(5, 103, "permission denied")]
    playbook >> {"id": 6, "subscribe": {"channel": "other"}} << [error(6, 103, "permission denied")]


def test_the_right_to_read_history_includes_recovery() -> None:
    """And positions, as the option for it does."""
    playbook = _with({"channels": ["news"], "allow": ["sub", "hst"]})
    playbook >> {"id": 2, "subscribe": {"channel": "news", "recoverable": True}}
    playbook >> opened("news")
    assert playbook.session.has_position_in("news")
    without = _with({"channels": ["news"], "allow": ["sub"]})
    without >> {"id": 2, "subscribe": {"channel": "news", "recoverable": True}} >> opened("news")
    assert not without.session.has_position_in("news")


def test_a_client_recovers_channels_of_its_capabilities_when_it_connects() -> None:
    """Those that it names in `connect.subs`, and no others."""
    token = connection_token("ada", caps=[{"channels": ["news"], "allow": ["sub"]}])
    playbook = new_connection(context(CLOSED))
    playbook >> {"id": 1, "connect": {"token": token, "subs": {"news": {}, "other": {}}}} >> opened("news")
    assert playbook.session.live_channels == ["news"]


def test_a_refresh_ends_what_only_the_old_capabilities_permitted() -> None:
    """Subscriptions by a token and those that are still granted go on."""
    playbook = _with({"channels": ["news", "kept"], "allow": ["sub", "pub"]})
    token = subscription_token("ada", "by-token")
    for channel, members in (("news", {}), ("kept", {}), ("by-token", {"token": token})):
        playbook >> {"id": 2, "subscribe": {"channel": channel, **members}} >> opened(channel)
    fresh = connection_token("ada", caps=[{"channels": ["kept"], "allow": ["sub"]}])
    playbook >> {"id": 3, "refresh": {"token": fresh}}
    playbook << [
        {"id": 3, "refresh": {"client": "c1", "version": "1.0"}},
        Closing("news"),
        unsubscribe_push("news", 2000, "server unsubscribe"),
    ]
    assert playbook.session.live_channels == ["kept", "by-token"]
    playbook >> {"id": 4, "publish": {"channel": "kept", "data": 1}} << [error(4, 103, "permission denied")]


def test_a_subscription_token_grants_rights_in_its_own_channel() -> None:
    """For as long as the subscription lasts."""
    playbook = connected(context(CLOSED))
    publish = {"publish": {"channel": "$news", "data": 1}}
    playbook >> {"id": 2, **publish} << [error(2, 103, "permission denied")]
    token = subscription_token("ada", "$news", allow=["pub"])
    playbook >> {"id": 3, "subscribe": {"channel": "$news", "token": token}} >> opened("$news")
    playbook >> {"id": 4, "history": {"channel": "$news"}} << [error(4, 103, "permission denied")]
    playbook >> {"id": 5, "unsubscribe": {"channel": "$news"}}
    playbook >> {"id": 6, **publish} << [error(6, 103, "permission denied")]
    playbook >> {"id": 7, "subscribe": {"channel": "$news", "token": token}} >> opened("$news")
    playbook >> {"id": 8, **publish}
    assert isinstance(playbook.effects[0], Execute)
