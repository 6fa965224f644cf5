"""Clients of the HTTP API for back ends: the same methods, plain or async."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from functools import partial, update_wrapper
from random import random
from secrets import token_hex
from ssl import SSLContext
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx

from . import api, backoff
from .api import Call
from .errors import (
    CLIENT_CLOSED,
    TOO_MANY_REQUESTS,
    BadProtocol,
    CallError,
    Disconnected,
    ServerUnreachable,
    TimedOut,
    TocsinError,
    Unauthorized,
    call_error,
)
from .protocol.codec import encode_json
from .transports.address import http_url, redact
from .transports.http import (
    PASSING_STATUSES,
    HttpClient,
    HttpTarget,
    PlainHttpClient,
    api_key_header,
    describe_response,
    password_error,
    post,
    post_async,
    retry_after,
)
from .transports.signing import Signer

ATTEMPTS = 3
TIMEOUT_SECONDS = 10.0
_PASSING_STATUSES = (*PASSING_STATUSES, 502, 503, 504)

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
AttemptOutcome = httpx.Response | httpx.RequestError


class _Endpoint:
    """The address and the headers of every request, and what a response means."""

    def __init__(
        self, url: str, api_key: str, key_name: str, timeout_seconds: float, ssl: SSLContext | None
    ) -> None:
        self.target = HttpTarget(http_url(url, "/api"), ssl, timeout=timeout_seconds)
        self._path, self._mark, self._query = self.target.url.partition("?")
        self._signer = Signer(key_name, api_key) if key_name else None
        key_header = {} if self._signer else api_key_header(api_key)
        self._headers = {"Content-Type": "application/json"} | key_header
        self.timeout_seconds = timeout_seconds

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments of one attempt, with a signature of its own."""
        content = encode_json(call.body).encode()
        headers = self._headers
        if self._signer is not None:
            path = f"/api/{call.method}"
            headers = headers | self._signer.header(path, content, time.time(), token_hex(16))
        return {
            "url": f"{self._path}/{call.method}{self._mark}{self._query}",
            "headers": headers,
            "content": content,
        }

    def attempts(self, call: Call[T]) -> Generator[float, AttemptOutcome, T]:
        """Decide about attempts: yield the wait before each, be sent its outcome, return the result.

        A server with too many requests is asked again after its ``Retry-After``, at most ``timeout_seconds``.
        """
        pause = 0.0
        failure: TocsinError
        for attempt in range(ATTEMPTS):
            outcome = yield pause
            pause = backoff.delay(attempt, random())  # noqa: S311 # jitter
            if isinstance(outcome, httpx.ReadTimeout):
                raise TimedOut(f"no response to {call.method}: it may or may not have been done")
            if isinstance(outcome, httpx.Response):
                pause += min(retry_after(outcome.headers), self.timeout_seconds)
                if outcome.status_code not in _PASSING_STATUSES:
                    try:
                        return self._read(call, outcome)
                    except CallError as error:
                        if error.code != TOO_MANY_REQUESTS:
                            raise
                        failure = error
                        continue
            failure = ServerUnreachable(f"the server cannot be reached: {self.target.describe(outcome)}")
        raise failure

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        if response.status_code == 401:
            reason = describe_response(401, response.text).partition(", ")[2]
            raise password_error(response.headers) or Unauthorized(
                f"the API key is not accepted: {reason}" if reason else "the API key is missing or wrong"
            )
        try:
            if response.status_code == 200:
                return api.read_response(call, response.text)
            error = response.json()
            raise call_error(error["code"], error["message"])
        except TocsinError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._unreadable(response) from error

    def _unreadable(self, response: httpx.Response) -> TocsinError:
        text = redact(response.text.strip()[:100]) or "an empty response"
        return self.target.misdirected(response) or BadProtocol(
            f"{redact(str(response.url))} answered {response.status_code}{self.target.hint}: {text}"
        )


class _Clients(Generic[C]):
    """The HTTP clients of one publisher: one for each process and event loop that uses it.

    A connection is never shared with a forked process, since both would read each other's responses. A client
    that a fork copied is neither used nor closed: a thread that is gone may hold its lock.

    A call that waits before its next attempt is woken when the publisher is closed.

    The mutable state is the clients, the calls that wait, and ``_is_closed``. Threads share them, so each
    change is one operation.
    """

    def __init__(self, new_client: Callable[[], C]) -> None:
        self._new_client = new_client
        self._is_closed = False
        self._clients: dict[tuple[int, asyncio.AbstractEventLoop | None], C] = {}
        self._wakers: dict[tuple[int, object], Callable[[], object]] = {}

    def current(self, loop: asyncio.AbstractEventLoop | None = None) -> C:
        """Return the client of this process and loop. Raises ``Disconnected`` once this is closed."""
        self.check_open()
        key = (os.getpid(), loop)
        client = self._clients.get(key)
        if client is None:
            self._drop_closed_loops()
            client = self._clients.setdefault(key, self._new_client())
            self.check_open()  # `close` may have run in another thread meanwhile
        return client

    def check_open(self) -> None:
        """Raise ``Disconnected`` once the publisher is closed."""
        if self._is_closed:
            raise Disconnected(CLIENT_CLOSED, "the publisher is closed")

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Generator[None]:
        """Call ``wake`` when this is closed. Raises ``Disconnected`` if it is, also at the end."""
        key = (os.getpid(), object())
        self._wakers[key] = wake
        try:
            self.check_open()  # not before: `close` may run in another thread
            yield
        finally:
            self._wakers.pop(key, None)
        self.check_open()

    def close(self) -> dict[asyncio.AbstractEventLoop | None, C]:
        """Refuse further calls. Returns the clients of this process, for the caller to close."""
        self._is_closed = True
        for (process, _), wake in list(self._wakers.items()):
            if process == os.getpid():
                with suppress(RuntimeError):  # the event loop has been closed
                    wake()
        clients, self._clients = self._clients, {}
        return {loop: client for (process, loop), client in list(clients.items()) if process == os.getpid()}

    def _drop_closed_loops(self) -> None:
        for process, loop in list(self._clients):
            if loop is not None and loop.is_closed():
                self._clients.pop((process, loop), None)


class _LoopClient:
    """The HTTP client of one event loop. It is closed by ``close``, or at the end of the loop."""

    def __init__(self, http: HttpClient, longest_seconds: float) -> None:
        self._http = http
        self._longest_seconds = longest_seconds
        # ``asyncio.run`` ends the generators of its loop, and so the connections
        self._open = _close_at_end(http)
        self._is_begun = False

    async def post(self, **request: Any) -> httpx.Response:
        if not self._is_begun:
            self._is_begun = True
            await anext(self._open)
        return await post_async(self._http, self._longest_seconds, **request)

    async def close(self) -> None:
        await self._open.aclose()


async def _close_at_end(http: HttpClient) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await http.aclose()


def _plain(build: Callable[P, Call[T]]) -> Callable[Concatenate[Publisher, P], T]:
    def method(self: Publisher, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    update_wrapper(method, build)
    return method


def _async(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncPublisher, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncPublisher, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    update_wrapper(method, build)
    return method


class Publisher:
    """The HTTP API for plain code: ``Publisher("http://localhost:8000", "key").publish("news", 1)``.

    With ``key_name``, the name of the key in the server's ``[api_keys]``, each request is signed with the
    key, which then never travels. When the connection fails or the server has too many requests (503, 429,
    error 111), a call is sent up to three times, after the server's ``Retry-After``; it still publishes only
    once. Raises ``Unauthorized`` (API key), ``CallError`` (an error of the API), ``ServerUnreachable``,
    ``TimedOut``, ``BadProtocol``, and ``Disconnected`` once it is closed. Threads may share it. So may
    processes that are forked later: each opens connections of its own. ``close`` it, or use ``with``.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        key_name: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        ssl: SSLContext | None = None,
    ) -> None:
        self._endpoint = _Endpoint(url, api_key, key_name, timeout_seconds, ssl)
        self._clients = _Clients(partial(self._endpoint.target.new_client, PlainHttpClient))

    publish = _plain(api.publish)
    broadcast = _plain(api.broadcast)
    batch = _plain(api.batch)
    presence = _plain(api.presence)
    presence_stats = _plain(api.presence_stats)
    history = _plain(api.history)
    history_remove = _plain(api.history_remove)
    channels = _plain(api.channels)
    info = _plain(api.info)
    drain = _plain(api.drain)
    disconnect = _plain(api.disconnect)
    unsubscribe = _plain(api.unsubscribe)
    subscribe = _plain(api.subscribe)
    refresh = _plain(api.refresh)
    revoke_token = _plain(api.revoke_token)
    invalidate_user_tokens = _plain(api.invalidate_user_tokens)
    webhooks = _plain(api.webhooks)
    dead_letters = _plain(api.dead_letters)
    replay_dead_letters = _plain(api.replay_dead_letters)
    discard_dead_letters = _plain(api.discard_dead_letters)

    def send(self, call: Call[T]) -> T:
        """Send a call, made by a function of ``tocsin.api``."""
        attempts = self._endpoint.attempts(call)
        pause = next(attempts)
        while True:
            if pause:
                self._pause(pause)
            try:
                pause = attempts.send(self._post(call))
            except StopIteration as end:
                result: T = end.value
                return result

    def close(self) -> None:
        """Close the connections to the server. A call that waits to be sent again raises ``Disconnected``."""
        for http in self._clients.close().values():
            http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pause(self, seconds: float) -> None:
        closed = threading.Event()
        with self._clients.waking(closed.set):
            closed.wait(seconds)

    def _post(self, call: Call[Any]) -> AttemptOutcome:
        http = self._clients.current()
        try:
            return post(http, self._endpoint.timeout_seconds, **self._endpoint.request(call))
        except httpx.RequestError as error:
            self._clients.check_open()
            return error
        except RuntimeError:
            self._clients.check_open()  # closed by another thread
            raise


class AsyncPublisher:
    """The HTTP API for asyncio: the methods and errors of ``Publisher``, awaited.

    A cancelled call may or may not have been done. Event loops may share it, one after the other or in
    several threads and processes: each opens connections of its own. ``close`` it, or use ``async with``.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        key_name: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        ssl: SSLContext | None = None,
    ) -> None:
        self._endpoint = _Endpoint(url, api_key, key_name, timeout_seconds, ssl)
        self._clients = _Clients(self._new_client)

    publish = _async(api.publish)
    broadcast = _async(api.broadcast)
    batch = _async(api.batch)
    presence = _async(api.presence)
    presence_stats = _async(api.presence_stats)
    history = _async(api.history)
    history_remove = _async(api.history_remove)
    channels = _async(api.channels)
    info = _async(api.info)
    drain = _async(api.drain)
    disconnect = _async(api.disconnect)
    unsubscribe = _async(api.unsubscribe)
    subscribe = _async(api.subscribe)
    refresh = _async(api.refresh)
    revoke_token = _async(api.revoke_token)
    invalidate_user_tokens = _async(api.invalidate_user_tokens)
    webhooks = _async(api.webhooks)
    dead_letters = _async(api.dead_letters)
    replay_dead_letters = _async(api.replay_dead_letters)
    discard_dead_letters = _async(api.discard_dead_letters)

    async def send(self, call: Call[T]) -> T:
        """Send a call, made by a function of ``tocsin.api``."""
        attempts = self._endpoint.attempts(call)
        pause = next(attempts)
        while True:
            if pause:
                await self._pause(pause)
            try:
                pause = attempts.send(await self._post(call))
            except StopIteration as end:
                result: T = end.value
                return result

    async def close(self) -> None:
        """Close the connections to the server. Those of another event loop are closed by that loop.

        A call that waits to be sent again raises ``Disconnected``.
        """
        for loop, http in self._clients.close().items():
            if loop is asyncio.get_running_loop():
                await http.close()
            elif loop is not None and loop.is_running():
                asyncio.run_coroutine_threadsafe(http.close(), loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _new_client(self) -> _LoopClient:
        return _LoopClient(self._endpoint.target.new_client(HttpClient), self._endpoint.timeout_seconds)

    async def _pause(self, seconds: float) -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        with self._clients.waking(partial(loop.call_soon_threadsafe, closed.set)), suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), seconds)

    async def _post(self, call: Call[Any]) -> AttemptOutcome:
        http = self._clients.current(asyncio.get_running_loop())
        try:
            return await http.post(**self._endpoint.request(call))
        except httpx.RequestError as error:
            self._clients.check_open()
            return error
        except RuntimeError:
            self._clients.check_open()  # closed by another task
            raise
