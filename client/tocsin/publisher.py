"""Publishing and asking through the HTTP API, as any back end does: the same methods, plain or async."""

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
from .address import http_url
from .api import Call
from .errors import BadProtocol, ServerUnreachable, TimedOut, TocsinError, Unauthorized, call_error
from .http import HttpClient
from .protocol import to_json

ATTEMPTS = 3
TIMEOUT_SECONDS = 10.0
_PASSING_STATUSES = (408, 425, 429, 502, 503, 504)

P = ParamSpec("P")
T = TypeVar("T")
Came = httpx.Response | httpx.TransportError


class _Endpoint:
    """Where to send, and with which key."""

    def __init__(self, url: str, api_key: str) -> None:
        self._url = http_url(url, "/api")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["X-API-Key"] = api_key

    def request(self, call: Call[Any]) -> dict[str, Any]:
        return {
            "url": f"{self._url}/{call.method}",
            "headers": self._headers,
            "content": to_json(call.body),
        }


def _converse(call: Call[T]) -> Generator[float, Came, T]:
    """Yield how long to wait before sending, be given what came of it, return the result or raise."""
    pause, failure = 0.0, ""
    for attempt in range(ATTEMPTS):
        came = yield pause
        if isinstance(came, httpx.Response) and came.status_code not in _PASSING_STATUSES:
            return _read(call, came)
        failure = f"HTTP {came.status_code}" if isinstance(came, httpx.Response) else _describe(came)
        if isinstance(came, httpx.ReadTimeout):
            raise TimedOut(f"no answer to {call.method}: it may or may not have been done")
        pause = backoff.delay(attempt, random())  # noqa: S311 # jitter
    raise ServerUnreachable(f"the server cannot be reached: {failure}")


def _read(call: Call[T], response: httpx.Response) -> T:
    if response.status_code == 401:
        raise Unauthorized("the API key is missing or wrong")
    try:
        if response.status_code == 200:
            return api.read_answer(call, response.text)
        error = response.json()
        raise call_error(error["code"], error["message"])
    except TocsinError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        text = response.text.strip()[:100] or "an empty answer"
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

    Each call is tried three times when the connection fails, which cannot publish twice. Raises
    ``Unauthorized`` (key), ``CallError`` (the server says no), ``ServerUnreachable``, ``TimedOut``,
    ``BadProtocol``. Safe to share between threads. ``close`` it, or use ``with``.
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
        """Send a call made by a function of ``tocsin.api``."""
        conversation = _converse(call)
        pause = next(conversation)
        while True:
            time.sleep(pause)
            try:
                pause = conversation.send(self._post(call))
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

    def _post(self, call: Call[Any]) -> Came:
        try:
            return self._http.post(**self._endpoint.request(call))
        except httpx.TransportError as error:
            return error


class AsyncPublisher:
    """The HTTP API for asyncio: the methods and errors of ``Publisher``, awaited.

    Cancelling a call gives up its answer: it may or may not have been done. ``close`` it, or use ``async
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
        """Send a call made by a function of ``tocsin.api``."""
        conversation = _converse(call)
        pause = next(conversation)
        while True:
            await asyncio.sleep(pause)
            try:
                pause = conversation.send(await self._post(call))
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

    async def _post(self, call: Call[Any]) -> Came:
        try:
            return await self._http.post(**self._endpoint.request(call))
        except httpx.TransportError as error:
            return error
