"""The body of a request, read up to a limit, and why a request is refused."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from tocsin_server import errors

RETRY_AFTER_SECONDS = 5

BODY_ENDED = "The request's body ended early."
BODY_CODED = "The request's body must not be compressed."

_CODES = {
    HTTPStatus.FORBIDDEN: errors.PERMISSION_DENIED.code,
    HTTPStatus.NOT_FOUND: errors.NOT_FOUND.code,
    HTTPStatus.SERVICE_UNAVAILABLE: errors.INTERNAL_ERROR.code,
    HTTPStatus.GATEWAY_TIMEOUT: errors.INTERNAL_ERROR.code,
}
"""The protocol's code in the body of a refusal, where it is not 107."""


class RequestRefused(Exception):
    """The status and the reason of a refusal; after how many seconds it may be different, for 503."""

    def __init__(self, status: HTTPStatus, reason: str, retry_after: int = RETRY_AFTER_SECONDS) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    def response(self, request: Request) -> JSONResponse:
        """The response, which closes its connection: an address may only open so many each second."""
        code = _CODES.get(self.status, errors.BAD_REQUEST.code)
        response = JSONResponse({"code": code, "message": self.reason}, self.status)
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = str(self.retry_after)
        if request.scope["http_version"] == "1.1":
            response.headers["Connection"] = "close"
        return response


def too_large(limit_bytes: int) -> RequestRefused:
    """The commands have more bytes than a WebSocket message may have."""
    reason = f"The commands have more than {limit_bytes} bytes ([client] message_limit_bytes)."
    return RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)


async def read_body(request: Request, limit_bytes: int, refusal: RequestRefused) -> bytes:
    """Read the whole body. Raises `refusal` at the first chunk beyond the limit, or a RequestRefused."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, BODY_CODED)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                raise refusal
    except ClientDisconnect:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, BODY_ENDED) from None
    return bytes(body)


def media_type(request: Request) -> str:
    """The type of a request's body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def address_of(request: Request) -> str:
    """The address of the client, empty if it is not known."""
    return request.client.host if request.client is not None else ""
