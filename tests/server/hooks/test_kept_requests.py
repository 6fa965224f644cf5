"""What a connection keeps of its request for hooks, and what an event shows of it."""

from __future__ import annotations

from io import StringIO

import pytest
from msgspec import Raw
from rich.console import Console
from rich.pretty import Pretty

from tocsin_server.hooks.events import ConnectEvent
from tocsin_server.node.client_request import ClientRequest, KeptHeaders, joined


def kept(
    sent: list[tuple[str, str]],
    query: str = "",
    names: list[str] | None = None,
    *,
    cookies_count: bool = True,
) -> ClientRequest:
    """Return what a connection keeps of its request."""
    headers = joined((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent)
    kept_headers = KeptHeaders(names)
    return kept_headers.request("sse", "json", "192.0.2.1", headers, query, cookies_count=cookies_count)


def test_a_connection_keeps_the_headers_that_hooks_want() -> None:
    sent = [("Cookie", "a=1"), ("cookie", "b=2"), ("X-Part", "1"), ("x-part", "2"), ("Other", "3")]
    request = kept(sent, "a=1&a=2&b=%20", ["COOKIE", "x-part"])
    assert request.headers == {"cookie": "a=1; b=2", "x-part": "1, 2"}
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.query == {"a": "2", "b": " "}
    assert kept(sent).headers["other"] == "3"


def test_cookies_that_do_not_count_are_not_kept() -> None:
    request = kept([("Cookie", "a=1"), ("Other", "3")], cookies_count=False)
    assert (request.headers, request.cookies) == ({"other": "3"}, {})


@pytest.mark.parametrize(
    "odd",
    ['prefs={"a":1}', "version=2", "x[y]=1", "name=J\u00fcrgen", "a=b c", "path=1", "lone", "a b=\x00; ="],
)
def test_a_cookie_that_is_not_valid_hides_no_other(odd: str) -> None:
    for sent in (f"{odd}; session=a=b", f"session=a=b; {odd}"):
        assert kept([("Cookie", sent)]).cookies["session"] == "a=b"


def test_an_event_in_a_traceback_shows_no_secret() -> None:
    """Applications may log tracebacks with the values of variables."""
    request = kept([("Cookie", "a-secret")], "token=a-secret")
    event = ConnectEvent(client="c1", request=request, token="a-secret", data=Raw(b'"a-secret"'))
    console = Console(file=StringIO(), width=200)
    console.print(Pretty(event))
    assert isinstance(console.file, StringIO)
    for shown in (repr(event), console.file.getvalue()):
        assert "c1" in shown
        assert "a-secret" not in shown
