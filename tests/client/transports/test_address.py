"""The addresses of a server, made from one base address."""

import pytest

from tocsin.transports.address import http_url, websocket_url


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
    with pytest.raises(ValueError, match=r"expected http://|[Pp]ort"):
        websocket_url(text)
