"""What a check of a link does, against real sockets of this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.support.tcp import tcp_server
from tocsin_demo.check_log import Finding
from tocsin_demo.inspection import ATTEMPTS, inspect, verdict
from tocsin_demo.store import Link


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_demo.inspection.PAUSE_SECONDS", 0)


class Place:
    """A web server that gives one answer and remembers what it was asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.asked.append(head.decode())
                writer.write(f"HTTP/1.1 {self.answer}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.fixture
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    made = Place(getattr(request, "param", "200 OK"))
    async with tcp_server(made.serve) as made.port:
        yield made


def link(url: str, link_id: int = 1, title: str = "A") -> Link:
    return Link(link_id, url, title, None, 1, 0.0)


async def findings(url: str, *others: Link) -> list[Finding]:
    return [finding async for finding, _total in inspect(link(url), others)]


async def test_an_address_on_this_machine_is_asked_several_times(place: Place) -> None:
    """With HEAD, for its own path, under the name the link gives."""
    found = await findings(f"http://localhost:{place.port}/page?x=1")
    assert len(place.asked) == ATTEMPTS
    assert place.asked[0].startswith("HEAD /page?x=1 HTTP/1.1\r\n")
    assert f"Host: localhost:{place.port}" in place.asked[0]
    assert verdict(found).startswith(f"answered {ATTEMPTS} of {ATTEMPTS} times, ")


@pytest.mark.parametrize("place", ["302 Found\r\nLocation: http://198.51.100.1/"], indirect=True)
async def test_a_redirect_is_an_answer_and_is_not_followed(place: Place) -> None:
    found = await findings(f"http://127.0.0.1:{place.port}/")
    assert found[-1].says.startswith("status 302")
    assert len(place.asked) == ATTEMPTS


@pytest.mark.parametrize("place", ["404 Not Found"], indirect=True)
async def test_an_error_is_no_good_answer(place: Place) -> None:
    found = await findings(f"http://127.0.0.1:{place.port}/")
    assert verdict(found).startswith("no good answer: status 404")


async def test_a_closed_port_gives_no_good_answer(place: Place) -> None:
    async with tcp_server(place.serve) as port:
        pass
    assert verdict(await findings(f"http://127.0.0.1:{port}/")).startswith("no good answer: ")


async def test_an_address_elsewhere_is_never_asked() -> None:
    """Not even for its name: it has no address until somebody looks it up."""
    found = await findings("http://tocsin.invalid/")
    assert [finding.step for finding in found] == ["address", "twin", "place"]
    assert verdict(found) == "well formed; elsewhere, so not asked"


async def test_another_link_to_the_same_place_is_found() -> None:
    found = await findings("https://EXAMPLE.com/", link("https://example.com:443", 2, "The first"))
    assert verdict(found) == "the same place as link 2, The first"


async def test_what_to_expect_is_known_before_the_asking_begins(place: Place) -> None:
    """So that a progress bar never goes back."""
    steps = [total async for _, total in inspect(link(f"http://127.0.0.1:{place.port}/"), [])]
    assert steps[2:] == [3 + ATTEMPTS] * (1 + ATTEMPTS)
    assert len(steps) == 3 + ATTEMPTS
