"""Globs of channel names."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.core.glob import LENGTH_LIMIT, Glob


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("news", ["news"], ["news:1", "new", ""]),
        ("news:*", ["news:", "news:1", "news:a:b"], ["news", "xnews:1"]),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("[abc]x", ["ax", "cx"], ["dx", "x"]),
        ("[!abc]x", ["dx"], ["ax"]),
        ("[]]", ["]"], ["[]]"]),
        ("{news,chat}:1", ["news:1", "chat:1"], ["x:1", "news", "{news,chat}:1"]),
        ("{news,chat:{a,b}}*", ["news", "news1", "chat:b2"], ["chat:c"]),
        ("{,a}b", ["b", "ab"], ["aab"]),
        ("{a*,[bc]?}z", ["az", "axyz", "b1z"], ["bz", "d1z"]),
        (r"a\*b", ["a*b"], ["axb"]),
        (r"a\{b\}", ["a{b}"], ["ab"]),
        (r"{a\,b,c}", ["a,b", "c"], ["a"]),
        ("a,b", ["a,b"], ["a", "b"]),
        ("a{b,c", ["a{b,c"], ["ab", "ac"]),
        ("a}b", ["a}b"], ["ab"]),
        ("{a{b}", ["{ab"], ["ab"]),
        ("a[b", ["a[b"], ["ab"]),
        ("[]", ["[]"], ["", "]"]),
        ("[!]", ["[!]"], ["a", "]"]),
        ("a\\", ["a\\"], ["a"]),
        ("größe:*", ["größe:\n1"], ["grosse:1"]),
    ],
)
def test_a_glob_matches_exactly_these_names(pattern: str, matching: list[str], others: list[str]) -> None:
    glob = Glob(pattern)
    assert [name for name in [*matching, *others] if glob.matches(name)] == matching


@given(pattern=st.text("ab*?", max_size=8), name=st.text("ab", max_size=8))
def test_a_glob_without_braces_matches_as_fnmatch_does(pattern: str, name: str) -> None:
    assert Glob(pattern).matches(name) == fnmatchcase(name, pattern)


@given(pattern=st.text("{},a*\\[]!", max_size=12))
def test_every_text_is_a_valid_glob(pattern: str) -> None:
    Glob(pattern).matches("a")


@given(pattern=st.text("ab*?[]!-", max_size=8), name=st.text("ab-!]", max_size=5))
def test_a_set_matches_as_in_fnmatch(pattern: str, name: str) -> None:
    assert Glob(pattern).matches(name) == fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 30 + "b",
        r"*\a" * 30 + "b",
        "*[a]" * 30 + "b",
        "*{a,aa}" * 30 + "b",
        "{a,aa,*}" * 30 + "b",
        "{*a,{*a,{*a,{*a,{*a,*a}}}}}" * 5 + "b",
        "[a]" + "?*" * 30 + "b",
    ],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """With an engine that tries every way, most of them would never end."""
    glob = Glob(pattern)
    for _ in range(100):
        assert not glob.matches("a" * 255)


def test_a_pattern_may_be_as_long_as_the_limit() -> None:
    """Also where it has as many nested braces, or letters beyond ASCII, as fit."""
    assert Glob("{" * (LENGTH_LIMIT // 2) + "}" * (LENGTH_LIMIT // 2)).matches("")
    assert Glob("ü" * LENGTH_LIMIT).matches("ü" * LENGTH_LIMIT)
    assert Glob("{ü,*}" * (LENGTH_LIMIT // 5)).matches("news")


def test_a_name_with_half_a_surrogate_pair_has_a_question_mark_in_its_place() -> None:
    """It cannot be encoded. So a pattern with one matches any character there."""
    assert Glob("a[?]").matches("a\ud800")
    assert Glob("\ud800").matches("?")
