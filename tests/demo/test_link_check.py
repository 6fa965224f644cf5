"""The steps of a link check, against real sockets of this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.support.tcp import tcp_server
from tocsin_demo.check_store import Finding
from tocsin_demo.link_check import ATTEMPTS, check_link, verdict
from tocsin_demo.link_store import Link


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_demo.link_check.PAUSE_SECONDS", 0)


class WebServer:
    """A web server that gives one response and records the requests."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head.decode())
                writer.write(f"HTTP/1.1 {self.answer}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[WebServer]:
    made = WebServer(getattr(request, "param", "200 OK"))
    async with tcp_server(made.serve) as made.port:
        yield made


def link(url: str, link_id: int = 1, title: str = "A") -> Link:
    return Link(link_id, url, title, None, 1, 0.0)


async def findings(url: str, *others: Link) -> list[Finding]:
    return [finding async for finding, _total in check_link(link(url), others)]


async def test_a_url_on_this_machine_is_requested_several_times(server: WebServer) -> None:
    """With HEAD, with its own path, and with the host of the link."""
    found = await findings(f"http://localhost:{server.port}/page?x=1")
    assert len(server.requests) == ATTEMPTS
    assert server.requests[0].startswith("HEAD /page?x=1 HTTP/1.1\r\n")
    assert f"Host: localhost:{server.port}" in server.requests[0]
    assert verdict(found).startswith(f"answered {ATTEMPTS} of {ATTEMPTS} times, ")


@pytest.mark.parametrize("server", ["302 Found\r\nLocation: http://198.51.100.1/"], indirect=True)
async def test_a_redirect_is_a_good_answer_and_is_not_followed(server: WebServer) -> None:
    found = await findings(f"http://127.0.0.1:{server.port}/")
    assert found[-1].text.startswith("status 302")
    assert len(server.requests) == ATTEMPTS


@pytest.mark.parametrize("server", ["404 Not Found"], indirect=True)
async def test_an_error_is_not_a_good_answer(server: WebServer) -> None:
    found = await findings(f"http://127.0.0.1:{server.port}/")
    assert verdict(found).startswith("no good answer: status 404")


async def test_a_closed_port_gives_no_good_answer(server: WebServer) -> None:
    async with tcp_server(server.serve) as port:
        pass
    assert verdict(await findings(f"http://127.0.0.1:{port}/")).startswith("no good answer: ")


async def test_a_url_on_another_machine_is_not_requested() -> None:
    """Its name is not resolved either."""
    found = await findings("http://tocsin.invalid/")
    assert [finding.step for finding in found] == ["address", "duplicate", "place"]
    assert verdict(found) == "well formed; on another machine, so not requested"


async def test_another_link_with_the_same_url_is_found() -> None:
    found = await findings("https://EXAMPLE.com/", link("https://example.com:443", 2, "The first"))
    assert verdict(found) == "the same URL as link 2, The first"


async def test_the_number_of_findings_is_known_before_the_first_request(server: WebServer) -> None:
    """So a progress bar never moves back."""
    steps = [total async for _, total in check_link(link(f"http://127.0.0.1:{server.port}/"), [])]
    assert steps[2:] == [3 + ATTEMPTS] * (1 + ATTEMPTS)
    assert len(steps) == 3 + ATTEMPTS
