"""Channel names (protocol §13): namespaces, prefixes, users and patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.channel_names import (
    ChannelRules,
    is_private,
    limited_to,
    namespace_of,
    personal_channel,
)

DEFAULT = ChannelOptions()
CHAT = ChannelOptions(presence=True)
RULES = ChannelRules(DEFAULT, {"chat": CHAT})


@pytest.mark.parametrize(
    ("channel", "namespace"),
    [
        ("news", None),
        ("$news", None),
        ("chat:room", "chat"),
        ("chat:", "chat"),
        ("$chat:room", "chat"),
        ("$$chat:room", "$chat"),
        ("chat:room:1", "chat"),
        (":room", ""),
        ("chat:#17", "chat"),
        ("dialog#17,4:2", "dialog#17,4"),
        ("", None),
    ],
)
def test_a_namespace_ends_at_the_first_colon(channel: str, namespace: str | None) -> None:
    """A `$` at the beginning is not part of it."""
    assert namespace_of(channel) == namespace


@pytest.mark.parametrize(
    ("channel", "options"),
    [("news", DEFAULT), ("chat:room", CHAT), ("$chat:room", CHAT), ("other:x", None), (":x", None)],
)
def test_a_channel_has_the_options_of_its_namespace(channel: str, options: ChannelOptions | None) -> None:
    """A namespace that is not configured does not exist; neither does the empty one."""
    assert RULES.options_for(channel) is options


@pytest.mark.parametrize(("channel", "private"), [("$news", True), ("news$", False), ("", False)])
def test_a_dollar_makes_a_channel_private(channel: str, private: bool) -> None:
    """Only at its beginning."""
    assert is_private(channel) is private


@pytest.mark.parametrize(
    ("channel", "users"),
    [
        ("news", None),
        ("dialog#17,42", {"17", "42"}),
        ("dialog#17", {"17"}),
        ("#17", {"17"}),
        ("a#b#17", {"17"}),
        ("a#", {""}),
        ("a#17,", {"17", ""}),
    ],
)
def test_the_users_of_a_channel_come_after_its_last_hash(channel: str, users: set[str] | None) -> None:
    """Commas separate them."""
    assert limited_to(channel) == (None if users is None else frozenset(users))


@given(st.text(st.characters(exclude_characters=",#")))
def test_a_personal_channel_is_limited_to_its_user(user: str) -> None:
    """With a namespace and without one."""
    assert limited_to(personal_channel(user)) == frozenset({user})
    assert limited_to(personal_channel(user, "chat")) == frozenset({user})
    assert RULES.options_for(personal_channel(user, "chat")) is CHAT


@pytest.mark.parametrize(
    ("channel", "too_long"),
    [("x" * 255, False), ("x" * 256, True), ("é" * 127, False), ("é" * 128, True), ("\ud800" * 86, True)],
)
def test_a_name_s_length_is_counted_in_bytes(channel: str, too_long: bool) -> None:
    """Of UTF-8, lone surrogates included."""
    assert RULES.is_too_long(channel) is too_long


@pytest.mark.parametrize(
    ("pattern", "channel", "well_formed"),
    [
        ("", "any thing/at*all", True),
        ("", "ünïcode", False),
        ("", "chat:ünïcode", False),
        (r"^\d+$", "42", True),
        (r"^\d+$", "chat:42", True),
        (r"^\d+$", "$chat:42", True),
        (r"^\d+$", "$42", True),
        (r"^\d+$", "chat:room", False),
        (r"^\d+$", "chat:42:43", False),
        (r"^\d+:\d+$", "chat:42:43", True),
        (r"\d", "chat:room 4", True),
        (r"^$", "chat:", True),
    ],
)
def test_a_name_is_ascii_and_matches_the_pattern_after_its_namespace(
    pattern: str, channel: str, well_formed: bool
) -> None:
    """The pattern may match anywhere in that part."""
    options = ChannelOptions(channel_regex=pattern)
    rules = ChannelRules(options, {"chat": options})
    assert rules.is_well_formed(channel, options) is well_formed
