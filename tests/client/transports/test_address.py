"""The addresses of a server, made from one base address."""

import pytest

from tocsin.transports.address import http_url, redact, websocket_url


@pytest.mark.parametrize(
    ("base", "websocket", "events"),
    [
        ("http://a:8000", "ws://a:8000/connection/websocket", "http://a:8000/events"),
        ("https://a/push/", "wss://a/push/connection/websocket", "https://a/push/events"),
        ("ws://a:8000", "ws://a:8000/connection/websocket", "http://a:8000/events"),
        ("wss://a/connection/websocket", "wss://a/connection/websocket", "https://a/events"),
        ("ws://a/own/path?x=1", "ws://a/own/path?x=1", "http://a/own/path/events?x=1"),
        ("http://[::1]:8000", "ws://[::1]:8000/connection/websocket", "http://[::1]:8000/events"),
    ],
)
def test_every_address_follows_from_every_kind_of_base(base: str, websocket: str, events: str) -> None:
    assert websocket_url(base) == websocket
    assert http_url(base, "/events") == events


@pytest.mark.parametrize("text", ["", "a", "a:8000", "ftp://a", "http://", "http://a:b", "//a"])
def test_a_wrong_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="expected http://"):
        websocket_url(text)


@pytest.mark.parametrize("password", ["p#w", "p?w", "p/w", "p[w", "p[w]x", "12#w"])
def test_an_unencoded_password_is_refused_and_not_repeated(password: str) -> None:
    """Its address would otherwise have another host, or none."""
    with pytest.raises(ValueError, match="write %23 for #") as caught:
        http_url(f"http://user:{password}@host:8000", "/api")
    assert password not in str(caught.value)
    assert "host:8000" in str(caught.value)


def test_an_encoded_password_stays_as_it_is() -> None:
    base = "http://user:p%23%3F%5Bw@host:8000"
    assert http_url(base, "/api") == f"{base}/api"
    assert websocket_url(base) == "ws://user:p%23%3F%5Bw@host:8000/connection/websocket"


@pytest.mark.parametrize(
    "text", ["http://a..b", "http://a b", "http://a/\x01", '"http://a"', "http://a:99999"]
)
def test_an_address_that_a_library_would_refuse_later_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address: expected http://"):
        http_url(text, "/api")


def test_the_line_end_of_a_file_is_no_part_of_an_address() -> None:
    assert http_url("http://a:8000\n", "/api") == "http://a:8000/api"


def test_an_address_in_a_message_has_no_password() -> None:
    assert redact("http://user:secret@host/path") == "http://…@host/path"
    assert redact("http://host/path") == "http://host/path"


def test_an_address_in_a_message_has_no_values_of_its_query() -> None:
    """They may be tokens and keys. Also in a text that repeats an address, as a proxy's error page does."""
    assert redact("http://host/events?channel=a&token=eyJ.x.y#z") == "http://host/events?channel=…&token=…#z"
    assert redact("Cannot GET /events?token=eyJ.x.y, 'a?b=c'") == "Cannot GET /events?token=… 'a?b=…'"
    assert redact("http://host/a?b") == "http://host/a?b"
