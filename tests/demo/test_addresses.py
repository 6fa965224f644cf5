"""What counts as an address, when two are the same, and which are on this machine."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_demo.addresses import NotAnAddressError, loopback, normal, parse


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
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(NotAnAddressError):
        parse(text)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """Nothing else is raised, whatever a visitor types."""
    with contextlib.suppress(NotAnAddressError):
        normal(text)
        loopback(parse(text))


@pytest.mark.parametrize(
    "other",
    ["http://Example.com/a", "http://example.com:80/a", "http://example.com./a", "http://example.com/a/#top"],
)
def test_differences_that_lead_nowhere_else_do_not_count(other: str) -> None:
    assert normal(other) == normal("http://example.com/a")


@pytest.mark.parametrize("other", ["https://example.com/a", "http://example.com/A", "http://example.com/a?b"])
def test_differences_that_lead_elsewhere_count(other: str) -> None:
    assert normal(other) != normal("http://example.com/a")


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
def test_only_a_loopback_address_is_on_this_machine(host: str, address: str | None) -> None:
    """A name is never looked up, so no name can lead to another place than it says."""
    assert loopback(parse(f"http://{host}/")) == address
