"""Calls of a back end over HTTP: bounded in connections and bytes, with a clear fault for each failure."""

from __future__ import annotations

import os
import ssl
from enum import Enum

import aiohttp
from aiohttp import ClientTimeout, DummyCookieJar
from multidict import CIMultiDict
from yarl import URL

from tocsin_server.config.proxy_options import ProxyOptions
from tocsin_server.hooks.proxy.connector import BackEndConnector, NoAnswer, NotReceived
from tocsin_server.hooks.proxy.faults import ProxyFault

NO_TIMEOUT = ClientTimeout(total=None, sock_connect=None)
"""The caller of `post` has the deadline for all of it."""


class Progress(Enum):
    """How far a call came that failed."""

    NOT_RECEIVED = "not received"
    """The back end has not received the request."""
    NO_ANSWER = "no answer"
    """It may have received it, and no byte of an answer came."""
    ANSWERED = "answered"


class CallFailed(ProxyFault):
    """A call without a complete answer."""

    def __init__(self, reason: str, label: str, progress: Progress, *, is_stale: bool = False) -> None:
        """`is_stale`: a kept connection was closed, and a new one is likely to do."""
        super().__init__(reason, label)
        self.progress = progress
        self.is_stale = is_stale


class BackEndClient:
    """The connections to one back end. Made in the event loop, and closed there."""

    def __init__(self, options: ProxyOptions, context: ssl.SSLContext | None) -> None:
        self.context = context
        """What new connections check certificates with. It may be replaced; open connections stay."""
        self._limit_bytes = options.answer_limit_bytes
        self._connector = BackEndConnector(limit=options.connections, keep_alive=options.keep_alive)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=NO_TIMEOUT,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
        )

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return self._connector.open_connections

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, url: URL, headers: CIMultiDict[str], body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer. Raises CallFailed.

        Redirects are not followed, and no proxy of the environment is used.
        """
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, ssl=self.context or True
            ) as response:
                return response.status, await self._body_of(response)
        except aiohttp.ClientError as error:
            raise failure_of(error.with_traceback(None)) from None

    async def _body_of(self, response: aiohttp.ClientResponse) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise _unusable("its answer is compressed, which was not requested")
        content, most = response.content, self._limit_bytes + 1
        body = await content.read(most)
        while not content.at_eof() and len(body) < most:
            body += await content.read(most - len(body))
        if len(body) == most:
            response.close()
            raise _unusable(f"its answer has more than {self._limit_bytes} bytes")
        return body


def _unusable(reason: str) -> CallFailed:
    return CallFailed(reason, "malformed", Progress.ANSWERED)


def failure_of(error: aiohttp.ClientError) -> CallFailed:
    """What a failure of aiohttp means, in a clause."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return CallFailed(f"the name {error.host} cannot be resolved", "connect", Progress.NOT_RECEIVED)
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            return CallFailed(f"its certificate is not accepted ({reason})", "tls", Progress.NOT_RECEIVED)
        case aiohttp.ClientConnectorSSLError():
            reason = getattr(error.os_error, "reason", "") or type(error.os_error).__name__
            return CallFailed(f"the TLS handshake failed ({reason})", "tls", Progress.NOT_RECEIVED)
        case aiohttp.ClientConnectorError():
            code = error.os_error.errno
            reason = os.strerror(code) if code else type(error.os_error).__name__
            return CallFailed(f"it cannot be connected to ({reason})", "connect", Progress.NOT_RECEIVED)
        case aiohttp.ClientPayloadError():
            return CallFailed("its answer ended early", "closed", Progress.ANSWERED)
        case aiohttp.ClientConnectionError():
            return _closed(error)
        case aiohttp.ClientResponseError():
            return _unusable("its answer is no HTTP")
        case _:
            return _unusable(f"the call failed ({type(error).__name__})")


def _closed(error: aiohttp.ClientConnectionError) -> CallFailed:
    """A connection that ended during the call."""
    if isinstance(error, aiohttp.ServerFingerprintMismatch | aiohttp.ServerTimeoutError):
        return CallFailed(f"the call failed ({type(error).__name__})", "closed", Progress.NO_ANSWER)
    cause = error.__cause__
    unwritten = aiohttp.ClientConnectionResetError
    if isinstance(cause, NotReceived | unwritten) or isinstance(error, unwritten):
        reason = "it closed the kept connection before it received the request"
        return CallFailed(reason, "closed", Progress.NOT_RECEIVED, is_stale=True)
    if isinstance(cause, NoAnswer):
        return CallFailed("it closed the connection without an answer", "closed", Progress.NO_ANSWER)
    return CallFailed("its answer ended early", "closed", Progress.ANSWERED)
