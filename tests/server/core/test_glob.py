"""Globs of channel names."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.core.glob import compile_glob


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
        ("a\\", ["a\\"], ["a"]),
        ("größe:*", ["größe:\n1"], ["grosse:1"]),
    ],
)
def test_a_glob_matches_exactly_these_names(pattern: str, matching: list[str], others: list[str]) -> None:
    found = compile_glob(pattern)
    assert [name for name in [*matching, *others] if found.fullmatch(name)] == matching


@given(pattern=st.text("ab*?", max_size=8), name=st.text("ab", max_size=8))
def test_a_glob_without_braces_matches_as_fnmatch_does(pattern: str, name: str) -> None:
    assert bool(compile_glob(pattern).fullmatch(name)) == fnmatchcase(name, pattern)


@given(pattern=st.text("{},a*\\[]!", max_size=12))
def test_every_text_is_a_valid_glob(pattern: str) -> None:
    compile_glob(pattern).fullmatch("a")


def test_many_stars_are_matched_quickly() -> None:
    """A pattern that backtracks would never finish."""
    assert not compile_glob("*a" * 30 + "b").fullmatch("a" * 2000)
