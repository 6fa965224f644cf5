"""HTTP to one address: httpx's clients, the proxy of the environment, and what failures mean."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Any, TypeVar

import httpx

from tocsin.errors import BadProtocol, ServerUnreachable, TocsinError, Unauthorized

from .address import redact
from .proxies import find_proxy

REASON_CHARACTERS = 200
LOCATION_CHARACTERS = 1000
LONGEST_RETRY_SECONDS = 300.0
RESPONSE_BYTES = 64 * 1024 * 1024
ERROR_BYTES = 65_536
PASSING_STATUSES = (408, 425, 429)  # of 4xx: worth another attempt
_Client = TypeVar("_Client", bound="PlainHttpClient | HttpClient")


class _LoggedUrl(httpx.URL):
    """An address without its secrets as a text, since httpx logs the text of each request's address."""

    def __str__(self) -> str:
        return redact(super().__str__())


class PlainHttpClient(httpx.Client):
    """httpx's client for plain code, which logs no user, password or query of an address."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, as httpx does."""
        request.url = _LoggedUrl(request.url)
        return super().send(request, **options)


class HttpClient(httpx.AsyncClient):
    """Raises only ``httpx.TransportError`` when a connection cannot be opened, or breaks.

    Under uvloop, a connection that breaks as soon as it is made has no socket, and anyio's request for its
    peer name raises ``AttributeError``. While the interpreter ends, no thread can be started to look up a
    name, and ``ServerUnreachable`` is raised. It logs no user, password or query of an address.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, as httpx does."""
        request.url = _LoggedUrl(request.url)
        try:
            return await super().send(request, **options)
        except AttributeError as error:
            if error.name != "getpeername":
                raise
            raise httpx.ConnectError("the connection broke at once", request=request) from error
        except RuntimeError as error:
            raise_at_interpreter_end(error)
            raise


class HttpTarget:
    """An address, the proxy in between, and the options of the clients for it.

    Connections belong to a client; a target has none, so that processes and event loops may share it.
    The mutable state is the TLS context; the first ``new_client`` sets it.
    """

    def __init__(self, url: str, ssl: SSLContext | None = None, **options: Any) -> None:
        self.url = url
        self._proxy = find_proxy(url)
        self._options = options | {
            "proxy": self._proxy.url if self._proxy else None,
            "trust_env": False,  # its proxies are chosen here, so that errors can name them
        }
        # a compressed response could be a thousand times larger than what was received
        self._options["headers"] = {"Accept-Encoding": "identity"} | dict(options.get("headers") or {})
        self._ssl = ssl

    def new_client(self, kind: type[_Client]) -> _Client:
        """Make a client.

        Raises ``ServerUnreachable`` if the environment names a proxy or certificates that are not usable.
        """
        if self._proxy is not None:
            self._proxy.check()
        if self._ssl is None:
            self._ssl = _default_ssl()
        try:
            return kind(verify=self._ssl, **self._options)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            if self._proxy is None:
                raise
            raise self._proxy.unusable(error) from error

    def describe(self, failure: httpx.RequestError | httpx.Response) -> str:
        """Return why there was no usable response, and the proxy that takes part."""
        if isinstance(failure, httpx.Response):
            return describe_response(failure.status_code, failure.text) + self.hint
        reason = str(failure) or type(failure).__name__
        return reason if isinstance(failure, httpx.ReadError | httpx.ReadTimeout) else reason + self.hint

    @property
    def hint(self) -> str:
        """The end of a sentence about a failure, if there is a proxy in between; otherwise empty."""
        return f" ({self._proxy.hint})" if self._proxy is not None else ""

    def misdirected(self, response: httpx.Response) -> TocsinError | None:
        """Return the error of a response that shows a wrong address or proxy; None for any other response."""
        status = response.status_code
        if status == 407 and self._proxy is not None:
            return self._proxy.refused(status)
        return redirect_error(redact(self.url), status, response.headers)


class BoundedBody:
    """The body of a response, piece by piece. It may be neither compressed nor longer than ``limit`` bytes.

    The mutable state is the pieces and their size; ``add`` changes it.
    """

    def __init__(self, response: httpx.Response, limit: int) -> None:
        self._response = response
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        check_not_compressed(response)

    def add(self, piece: bytes) -> None:
        """Add a piece. Raises ``BadProtocol`` above the limit."""
        self._size += len(piece)
        if self._size > self._limit:
            raise BadProtocol(f"{redact(str(self._response.url))} sent more than {self._limit:,} bytes")
        self._pieces.append(piece)

    def finish(self) -> httpx.Response:
        """Return the response with its body."""
        return httpx.Response(
            self._response.status_code,
            headers=self._response.headers,
            content=b"".join(self._pieces),
            request=self._response.request,
        )


def check_not_compressed(response: httpx.Response) -> None:
    """Raise ``BadProtocol`` if a response is compressed, which no request permits."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise BadProtocol(f"{redact(str(response.url))} sent a compressed response, which no request permits")


def post(http: httpx.Client, longest_seconds: float, **request: Any) -> httpx.Response:
    """Post a request, and read its response for at most ``longest_seconds`` after its head."""
    with http.stream("POST", **request) as response:
        body, until = BoundedBody(response, RESPONSE_BYTES), time.monotonic() + longest_seconds
        for piece in response.iter_raw():
            body.add(piece)
            if time.monotonic() > until:
                raise httpx.ReadTimeout("the response does not end", request=response.request)
        return body.finish()


async def post_async(http: httpx.AsyncClient, longest_seconds: float, **request: Any) -> httpx.Response:
    """Post a request, and read its response for at most ``longest_seconds`` after its head.

    The head may take three times as long: to connect, to send and to wait.
    """
    try:
        async with asyncio.timeout(3 * longest_seconds) as limit, http.stream("POST", **request) as response:
            body = BoundedBody(response, RESPONSE_BYTES)
            limit.reschedule(asyncio.get_running_loop().time() + longest_seconds)
            async for piece in response.aiter_raw():
                body.add(piece)
            return body.finish()
    except TimeoutError as error:
        raise httpx.ReadTimeout("the response does not end") from error


async def read_error(response: httpx.Response) -> httpx.Response:
    """Return the response with the start of its body, at most ``ERROR_BYTES``."""
    start = b""
    async for piece in response.aiter_raw():
        start += piece
        if len(start) >= ERROR_BYTES:
            break
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(
        response.status_code, headers=headers, content=start[:ERROR_BYTES], request=response.request
    )


def _default_ssl() -> SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ServerUnreachable(
            "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: "
            f"{error.strerror or error}"
        ) from error


def redirect_error(what: str, status: int, headers: Mapping[str, str]) -> BadProtocol | None:
    """Return the error of a redirect, which is not followed; None for any other response."""
    location = headers.get("Location")
    if not 300 <= status < 400 or not location:
        return None
    return BadProtocol(
        f"{what} was answered with HTTP {status}, a redirect to {redact(location[:LOCATION_CHARACTERS])}: "
        "use the address of the server itself"
    )


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds of ``Retry-After``, at most 300. 0 if there are none, also where it holds a date."""
    text = headers.get("Retry-After") or ""
    return min(float(text), LONGEST_RETRY_SECONDS) if text.isascii() and text.isdigit() else 0.0


def password_error(headers: Mapping[str, str]) -> Unauthorized | None:
    """Return the error of a 401 with which a proxy demands a password; None for any other 401."""
    if not headers.get("WWW-Authenticate", "").lower().startswith("basic"):
        return None
    return Unauthorized(
        "a proxy in front of the server demands a user and a password (HTTP 401): write them into the "
        "address, http://USER:PASSWORD@HOST"
    )


def describe_response(status: int, body: str) -> str:
    """Return the status of an unexpected response, and the reason that its body holds."""
    reason = _reason_of(body)
    return f"HTTP {status}, {reason!r}" if reason else f"HTTP {status}"


def _reason_of(body: str) -> str:
    """Return the message of a JSON error, or the start of a text. Empty for a page in HTML."""
    if body.lstrip().startswith("<"):
        return ""
    with suppress(ValueError, LookupError, TypeError, RecursionError):  # a text
        body = str(json.loads(body)["message"])
    return redact(" ".join(body[:REASON_CHARACTERS].split()))


def api_key_header(api_key: str) -> dict[str, str]:
    """Return the header of an API key, without surrounding white space. Raises ``ValueError``."""
    key = api_key.strip()
    if not is_header_value(key):
        raise ValueError("the API key has characters that an HTTP header cannot hold, such as a line end")
    return {"X-API-Key": key} if key else {}


def is_header_value(text: str) -> bool:
    """Return whether a text may be the value of a header: printable ASCII."""
    return text.isascii() and text.isprintable()


def raise_at_interpreter_end(error: RuntimeError) -> None:
    """Raise ``ServerUnreachable`` if the error means that the interpreter is ending."""
    # "cannot schedule new futures after interpreter shutdown", "can't register atexit after shutdown"
    if str(error).endswith(("interpreter shutdown", "after shutdown")):
        raise ServerUnreachable("the interpreter is ending: no new connection can be opened") from error
