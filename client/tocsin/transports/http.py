"""HTTP to one address: httpx's clients, the proxy of the environment, and what failures mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Any, TypeVar

import httpx

from tocsin.errors import BadProtocol, ServerUnreachable, TocsinError, Unauthorized

from .address import redact
from .proxies import find_proxy

REASON_CHARACTERS = 200
PASSING_STATUSES = (408, 425, 429)  # of 4xx: worth another attempt
_Client = TypeVar("_Client", bound="httpx.Client | HttpClient")


class HttpClient(httpx.AsyncClient):
    """Raises only ``httpx.TransportError`` when a connection cannot be opened, or breaks.

    Under uvloop, a connection that breaks as soon as it is made has no socket, and anyio's request for its
    peer name raises ``AttributeError``. While the interpreter ends, no thread can be started to look up a
    name, and ``ServerUnreachable`` is raised.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, as httpx does."""
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
        if 300 <= status < 400 and (location := response.headers.get("location")):
            return BadProtocol(
                f"{redact(self.url)} answered HTTP {status}, a redirect to {redact(location)}: "
                "use the address of the server itself"
            )
        return None


def _default_ssl() -> SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ServerUnreachable(
            "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: "
            f"{error.strerror or error}"
        ) from error


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
    return " ".join(body[:REASON_CHARACTERS].split())


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
