"""Clients of the HTTP API for back ends: the same methods, plain or async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from functools import update_wrapper
from random import random
from ssl import SSLContext
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from . import api, backoff
from .api import Call
from .errors import BadProtocol, ServerUnreachable, TimedOut, TocsinError, Unauthorized, call_error
from .protocol.codec import encode_json
from .transports.address import http_url
from .transports.http import PASSING_STATUSES, HttpClient

ATTEMPTS = 3
TIMEOUT_SECONDS = 10.0
_PASSING_STATUSES = (*PASSING_STATUSES, 502, 503, 504)

P = ParamSpec("P")
T = TypeVar("T")
AttemptOutcome = httpx.Response | httpx.TransportError


class _Endpoint:
    """The address and the headers of every request."""

    def __init__(self, url: str, api_key: str) -> None:
        self._url = http_url(url, "/api")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["X-API-Key"] = api_key

    def request(self, call: Call[Any]) -> dict[str, Any]:
        return {
            "url": f"{self._url}/{call.method}",
            "headers": self._headers,
            "content": encode_json(call.body),
        }


def _attempts(call: Call[T]) -> Generator[float, AttemptOutcome, T]:
    """Decide about attempts: yield the wait before each, be sent its outcome, return the result or raise."""
    pause, failure = 0.0, ""
    for attempt in range(ATTEMPTS):
        outcome = yield pause
        if isinstance(outcome, httpx.Response) and outcome.status_code not in _PASSING_STATUSES:
            return _read(call, outcome)
        failure = f"HTTP {outcome.status_code}" if isinstance(outcome, httpx.Response) else _describe(outcome)
        if isinstance(outcome, httpx.ReadTimeout):
            raise TimedOut(f"no response to {call.method}: it may or may not have been done")
        pause = backoff.delay(attempt, random())  # noqa: S311 # jitter
    raise ServerUnreachable(f"the server cannot be reached: {failure}")


def _read(call: Call[T], response: httpx.Response) -> T:
    if response.status_code == 401:
        raise Unauthorized("the API key is missing or wrong")
    try:
        if response.status_code == 200:
            return api.read_response(call, response.text)
        error = response.json()
        raise call_error(error["code"], error["message"])
    except TocsinError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        text = response.text.strip()[:100] or "an empty response"
        raise BadProtocol(f"{response.url} answered {response.status_code}: {text}") from error


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


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

    When the connection fails, a call is sent up to three times; it still publishes only once. Raises
    ``Unauthorized`` (API key), ``CallError`` (an error of the API), ``ServerUnreachable``, ``TimedOut``,
    ``BadProtocol``. Threads may share it. ``close`` it, or use ``with``.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        ssl: SSLContext | None = None,
    ) -> None:
        self._endpoint = _Endpoint(url, api_key)
        self._http = httpx.Client(timeout=timeout_seconds, verify=ssl or True)

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

    def send(self, call: Call[T]) -> T:
        """Send a call, made by a function of ``tocsin.api``."""
        attempts = _attempts(call)
        pause = next(attempts)
        while True:
            time.sleep(pause)
            try:
                pause = attempts.send(self._post(call))
            except StopIteration as end:
                result: T = end.value
                return result

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, call: Call[Any]) -> AttemptOutcome:
        try:
            return self._http.post(**self._endpoint.request(call))
        except httpx.TransportError as error:
            return error


class AsyncPublisher:
    """The HTTP API for asyncio: the methods and errors of ``Publisher``, awaited.

    A cancelled call may or may not have been done. ``close`` it, or use ``async
    with``.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        ssl: SSLContext | None = None,
    ) -> None:
        self._endpoint = _Endpoint(url, api_key)
        self._http = HttpClient(timeout=timeout_seconds, verify=ssl or True)

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

    async def send(self, call: Call[T]) -> T:
        """Send a call, made by a function of ``tocsin.api``."""
        attempts = _attempts(call)
        pause = next(attempts)
        while True:
            await asyncio.sleep(pause)
            try:
                pause = attempts.send(await self._post(call))
            except StopIteration as end:
                result: T = end.value
                return result

    async def close(self) -> None:
        """Close the connections to the server."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _post(self, call: Call[Any]) -> AttemptOutcome:
        try:
            return await self._http.post(**self._endpoint.request(call))
        except httpx.TransportError as error:
            return error
