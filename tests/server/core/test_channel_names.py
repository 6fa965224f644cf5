"""Channel names (protocol §13): namespaces, prefixes, users and patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel_names import (
    ChannelRules,
    Kind,
    encoded_user,
    is_limited_to,
    is_personal,
    is_private,
    namespace_of,
    personal_channel,
)

DEFAULT = ChannelOptions()
CHAT = ChannelOptions(presence=True)
LIMITED = ChannelOptions(allow_user_limited_channels=True)
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
        ("dialog#17,4:2", None),
        ("#urn:uuid:17", None),
        ("chat:#urn:uuid:17", "chat"),
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
    ("channel", "permitted"),
    [
        ("news", None),
        ("dialog#17,42", {"17", "42"}),
        ("dialog#17", {"17"}),
        ("chat:dialog#17", {"17"}),
        ("#17", {"17"}),
        ("#17,42", {"17,42"}),
        ("chat:#17,42", {"17,42"}),
        ("#a#b", {"a#b"}),
        ("a#b#17", set()),
        ("a#", set()),
        ("a#17,", {"17"}),
        ("a#17%2C42", {"17,42"}),
        ("a#17%252C42", {"17%2C42"}),
        ("a#J%C3%BCrgen,b%23", {"Jürgen", "b#"}),
        ("a#Jürgen", set()),
    ],
)
def test_the_users_of_a_channel_come_after_its_hash(channel: str, permitted: set[str] | None) -> None:
    """Commas separate them. A name with two hashes, or with a separator in an id, permits no user."""
    users = ["17", "42", "17,42", "17%2C42", "a#b", "b", "Jürgen", "b#"]
    kind = ChannelRules(LIMITED, {"chat": LIMITED}).kind_of(channel, LIMITED)
    assert (kind is not Kind.PLAIN) is (permitted is not None)
    assert {user for user in users if is_limited_to(channel, user)} == (permitted or set())


@pytest.mark.parametrize(
    ("channel", "with_the_option", "with_personal_channels", "otherwise"),
    [
        ("news", Kind.PLAIN, Kind.PLAIN, Kind.PLAIN),
        ("$news", Kind.PRIVATE, Kind.PRIVATE, Kind.PRIVATE),
        ("$$news", Kind.PRIVATE, Kind.PRIVATE, Kind.PRIVATE),
        ("$chat:news", Kind.PRIVATE, Kind.PRIVATE, Kind.PRIVATE),
        ("chat:$news", Kind.PLAIN, Kind.PLAIN, Kind.PLAIN),
        ("$room#ann", Kind.PRIVATE, Kind.PRIVATE, Kind.PRIVATE),
        ("$#ann", Kind.PRIVATE, Kind.PRIVATE, Kind.PRIVATE),
        ("room#ann", Kind.USER_LIMITED, Kind.PLAIN, Kind.PLAIN),
        ("room#", Kind.USER_LIMITED, Kind.PLAIN, Kind.PLAIN),
        ("chat:room#ann", Kind.USER_LIMITED, Kind.PLAIN, Kind.PLAIN),
        ("#ann", Kind.PERSONAL, Kind.PLAIN, Kind.PLAIN),
        ("chat:#ann", Kind.PERSONAL, Kind.PERSONAL, Kind.PLAIN),
        ("chat:#", Kind.PERSONAL, Kind.PERSONAL, Kind.PLAIN),
        ("chat:##ann", Kind.PERSONAL, Kind.PERSONAL, Kind.PLAIN),
        ("chat: #ann", Kind.USER_LIMITED, Kind.PLAIN, Kind.PLAIN),
        ("chat:\uff03ann", Kind.PLAIN, Kind.PLAIN, Kind.PLAIN),
    ],
)
def test_the_kind_of_a_channel_follows_from_its_name_and_options(
    channel: str, with_the_option: Kind, with_personal_channels: Kind, otherwise: Kind
) -> None:
    """With `allow_user_limited_channels`; with personal channels in the namespace "chat"; without both."""
    assert ChannelRules(LIMITED, {"chat": LIMITED}).kind_of(channel, LIMITED) is with_the_option
    personal = ChannelRules(DEFAULT, {"chat": DEFAULT}, personal_namespace="chat")
    assert personal.kind_of(channel, DEFAULT) is with_personal_channels
    assert RULES.kind_of(channel, DEFAULT) is otherwise


def test_personal_channels_without_a_namespace_are_in_none() -> None:
    rules = ChannelRules(DEFAULT, {"chat": DEFAULT}, personal_namespace="")
    assert rules.kind_of("#ann", DEFAULT) is Kind.PERSONAL
    assert rules.kind_of("chat:#ann", DEFAULT) is Kind.PLAIN


@pytest.mark.parametrize("expression", [r"^(a+)+$", r"^(a|a)*$", r".*a.*a.*a.*a.*a.*b$"])
def test_no_expression_takes_long_for_a_name(expression: str) -> None:
    """With an engine that tries every way, the first of them would never end."""
    options = ChannelOptions(channel_regex=expression)
    assert ChannelRules(options, {}).problem_of("a" * 254 + "!", options)


@pytest.mark.parametrize("expression", ["(?=a)", r"(a)\1", "(", "a{2000}"])
def test_an_expression_that_cannot_be_matched_in_linear_time_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="a regular expression of RE2"):
        ChannelOptions(channel_regex=expression)


def test_a_line_break_at_the_end_of_a_name_counts() -> None:
    """Python's `$` also matches before it."""
    options = ChannelOptions(channel_regex=r"^\d+$")
    assert ChannelRules(options, {}).problem_of("42\n", options)


USERS = st.text(min_size=1) | st.text("ab#,:%$ü", min_size=1)


@given(USERS, USERS)
def test_a_personal_channel_is_limited_to_its_user(user: str, other: str) -> None:
    """With every character in the user's id, with a namespace and without one."""
    for channel in (personal_channel(user), personal_channel(user, "chat")):
        assert is_personal(channel)
        assert is_limited_to(channel, user)
        assert is_limited_to(channel, other) is (user == other)
    assert RULES.options_for(personal_channel(user)) is DEFAULT
    assert RULES.options_for(personal_channel(user, "chat")) is CHAT


@given(st.lists(USERS, min_size=1, max_size=3), USERS)
def test_a_user_limited_name_is_limited_to_the_users_that_it_was_made_of(
    users: list[str], other: str
) -> None:
    """No separator in an id forges another user, if the ids are encoded."""
    channel = "room#" + ",".join(map(encoded_user, users))
    assert channel.isascii()
    assert all(is_limited_to(channel, user) for user in users)
    assert is_limited_to(channel, other) is (other in users)


@pytest.mark.parametrize("user", ["17", "auth0|5f7c", "ann@example.com", "urn:uuid:1", "DOMAIN\\ann", "a b"])
def test_most_ids_are_not_changed_in_a_list(user: str) -> None:
    """Only separators, percent signs and letters beyond ASCII are encoded."""
    assert encoded_user(user) == user


@pytest.mark.parametrize(
    ("channel", "too_long"),
    [("x" * 255, False), ("x" * 256, True), ("é" * 127, False), ("é" * 128, True), ("\ud800" * 86, True)],
)
def test_a_name_s_length_is_counted_in_bytes(channel: str, too_long: bool) -> None:
    """Of UTF-8, lone surrogates included."""
    assert RULES.is_too_long(channel) is too_long


@pytest.mark.parametrize(
    ("pattern", "channel", "is_valid"),
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
        ("", "#Jürgen", True),
        ("", "chat:#Jürgen", True),
        ("", "room#Jürgen", False),
        (r"^#\d+$", "#42", True),
        (r"^#\d+$", "#42:43", False),
    ],
)
def test_a_name_is_ascii_and_matches_the_pattern_after_its_namespace(
    pattern: str, channel: str, is_valid: bool
) -> None:
    """The pattern may match anywhere in that part. The id of a personal channel's user need not be ASCII."""
    options = ChannelOptions(channel_regex=pattern)
    rules = ChannelRules(options, {"chat": options})
    assert (not rules.problem_of(channel, options)) is is_valid
