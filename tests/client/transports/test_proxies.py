"""The proxy of the environment: which one is used, and what each client raises if it does not work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.tcp import tcp_server
from tests.support.timing import SOON
from tocsin import (
    AsyncPublisher,
    Client,
    EventStream,
    Publisher,
    ServerUnreachable,
    State,
    StateChanged,
    Unauthorized,
    backoff,
)
from tocsin.transports.proxies import Proxy, find_proxy

CLOSED = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a proxy, and a short backoff."""
    for scheme in ("http", "https", "all", "no", "ws", "wss", "socks"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        ("http://a", {}, None),
        ("http://a", {"http_proxy": "http://p:1"}, Proxy("http://p:1", "http_proxy")),
        ("http://a", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://a", {"HTTPS_PROXY": "http://p:1"}, Proxy("http://p:1", "HTTPS_PROXY")),
        ("https://a", {"ALL_PROXY": "socks5://p:1"}, Proxy("socks5://p:1", "ALL_PROXY")),
        ("https://a", {"ALL_PROXY": "http://p", "https_proxy": "q"}, Proxy("http://q", "https_proxy")),
        ("ws://a", {"http_proxy": "http://p", "https_proxy": "http://q"}, Proxy("http://q", "https_proxy")),
        ("wss://a", {"http_proxy": "http://p:1"}, None),
        ("http://a:8000", {"http_proxy": "http://p", "no_proxy": "b,a"}, None),
        ("http://a:8000", {"http_proxy": "http://p", "no_proxy": "a:8000"}, None),
        ("ws://x.a", {"http_proxy": "http://p", "NO_PROXY": ".a"}, None),
    ],
)
def test_the_environment_names_a_proxy_for_an_address(
    environment: pytest.MonkeyPatch, url: str, variables: dict[str, str], expected: Proxy | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert find_proxy(url) == expected


def test_the_password_of_a_proxy_is_in_no_message() -> None:
    proxy = Proxy("http://user:secret@p:1", "http_proxy")
    assert str(proxy) == "the proxy p:1 (set by http_proxy)"
    assert "secret" not in f"{proxy.hint} {proxy.unusable(ValueError())} {proxy.refused(407)}"


async def publish(url: str) -> None:
    with Publisher(url) as publisher:
        await asyncio.to_thread(publisher.publish, "news", 1)


async def publish_async(url: str) -> None:
    async with AsyncPublisher(url) as publisher:
        await publisher.publish("news", 1)


async def stream(url: str) -> None:
    async with asyncio.timeout(SOON), EventStream(url, "news") as stream:
        await anext(stream)


async def subscribe(url: str) -> None:
    async with asyncio.timeout(SOON), Client(url) as client:
        await client.ready()


Use = Callable[[str], Awaitable[None]]


@pytest.mark.parametrize("use", [publish, publish_async, stream, subscribe])
@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks5://127.0.0.1:9", r"SOCKS needs a package: pip install '(httpx|python-socks)"),
        ("ftp://127.0.0.1:9", "ftp:// is not supported"),
        ("http://", "expected http://HOST:PORT"),
        ("http://h:port", "expected http://HOST:PORT"),
    ],
)
async def test_an_unusable_proxy_is_an_error_that_names_its_variable(
    environment: pytest.MonkeyPatch, use: Use, proxy: str, words: str
) -> None:
    environment.setenv("http_proxy", proxy)
    with pytest.raises(ServerUnreachable, match=rf"http_proxy\) cannot be used: .*{words}"):
        await use("http://a.example")


@pytest.mark.parametrize("use", [publish, publish_async, stream, subscribe])
async def test_an_unusable_proxy_of_another_host_does_not_matter(
    environment: pytest.MonkeyPatch, use: Use
) -> None:
    environment.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    environment.setenv("no_proxy", "127.0.0.1")
    with pytest.raises((ServerUnreachable, TimeoutError), match=r"^$|cannot be reached"):
        async with asyncio.timeout(0.3):
            await use(CLOSED)


@pytest.fixture
async def proxy(environment: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A proxy that demands a password."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    async with tcp_server(refuse) as port:
        environment.setenv("http_proxy", f"http://127.0.0.1:{port}")
        yield


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize("use", [publish, publish_async, stream, subscribe])
async def test_a_proxy_that_demands_a_password_is_an_error_that_says_where_to_write_it(use: Use) -> None:
    with pytest.raises(ServerUnreachable, match="write its user and password into http_proxy"):
        await use("http://a.example")


@pytest.mark.parametrize("use", [publish, publish_async, stream, subscribe])
async def test_a_proxy_in_front_of_the_server_that_demands_a_password_is_an_error_of_its_own(
    use: Use,
) -> None:
    """It is not the server that refuses a token or an API key."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"
        writer.write(head)

    async with tcp_server(refuse) as port:
        with pytest.raises(Unauthorized, match="write them into the address"):
            await use(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("use", [publish, publish_async])
async def test_a_publisher_names_the_proxy_that_refuses_connections(
    environment: pytest.MonkeyPatch, use: Use
) -> None:
    environment.setenv("http_proxy", CLOSED)
    with pytest.raises(ServerUnreachable, match=r"through the proxy 127\.0\.0\.1:9 .set by http_proxy"):
        await use("http://a.example")


@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_a_client_names_the_proxy_that_refuses_connections_and_tries_again(
    environment: pytest.MonkeyPatch, kind: str
) -> None:
    environment.setenv("http_proxy", CLOSED)
    reasons: list[str] = []

    def on_state(event: StateChanged) -> None:
        if event.state is State.CONNECTING and event.reason != "connect called":
            reasons.append(event.reason)
            if len(reasons) == 2:
                is_repeated.set()

    is_repeated = asyncio.Event()
    async with asyncio.timeout(SOON):
        if kind == "websocket":
            async with Client("http://a.example", on_state=on_state):
                await is_repeated.wait()
        else:
            async with EventStream("http://a.example", "news", on_state=on_state) as events:
                reading = asyncio.ensure_future(anext(events))
                await is_repeated.wait()
                reading.cancel()
                await asyncio.wait([reading])
    assert all("through the proxy 127.0.0.1:9 (set by http_proxy)" in reason for reason in reasons)
