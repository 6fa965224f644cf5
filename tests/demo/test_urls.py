"""Which texts are URLs, which URLs are equal, and which are on this machine."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_demo.urls import InvalidUrlError, loopback_address, normalized, parse_url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "ftp://example.com",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "http://user:secret@example.com",
        "http://example.com:99999",
        "http://[::1",
        "http://exa mple.com",
        "http://exämple.com",
        "http://example.com/\n",
        "http://example.com/" + "a" * 500,
    ],
)
def test_a_text_that_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidUrlError):
        parse_url(text)


@given(st.text())
def test_any_text_is_a_url_or_raises_invalid_url_error(text: str) -> None:
    """No text raises another error."""
    with contextlib.suppress(InvalidUrlError):
        normalized(text)
        loopback_address(parse_url(text))


@pytest.mark.parametrize(
    "other",
    ["http://Example.com/a", "http://example.com:80/a", "http://example.com./a", "http://example.com/a/#top"],
)
def test_equal_urls_are_normalized_to_one_text(other: str) -> None:
    assert normalized(other) == normalized("http://example.com/a")


@pytest.mark.parametrize("other", ["https://example.com/a", "http://example.com/A", "http://example.com/a?b"])
def test_different_urls_are_normalized_to_different_texts(other: str) -> None:
    assert normalized(other) != normalized("http://example.com/a")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1.2.3", "127.1.2.3"),
        ("[::1]", "::1"),
        ("example.com", None),
        ("localhost.example.com", None),
        ("10.0.0.1", None),
        ("169.254.169.254", None),
        ("0.0.0.0", None),
        ("[::]", None),
        ("2130706433", None),
        ("127.1", None),
    ],
)
def test_only_localhost_and_loopback_addresses_are_on_this_machine(host: str, address: str | None) -> None:
    """A name is never resolved, so no name can lead to another machine."""
    assert loopback_address(parse_url(f"http://{host}/")) == address
