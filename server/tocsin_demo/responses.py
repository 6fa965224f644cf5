"""Requests and responses in JSON: bounded bodies, typed input, errors with a code and a sentence."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handle = Callable[[Request], Awaitable[Response]]

T = TypeVar("T")

BODY_LIMIT_BYTES = 16_384
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_JSON_TYPES = {"application/json", "application/merge-patch+json"}


class HttpError(Exception):
    """Ends a request with an error response: an HTTP status, a code for programs, a sentence for people."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response that caches must revalidate."""
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        headers={"Cache-Control": "no-cache", **(headers or {})},
        media_type="application/json",
    )


def _with_error_responses(handle: Handle) -> Handle:
    """Wrap a handler so that an HttpError becomes a response."""

    @wraps(handle)
    async def wrapped(request: Request) -> Response:
        try:
            return await handle(request)
        except HttpError as error:
            body = {"error": {"code": error.code, "message": error.message}}
            return json_response(body, error.status, error.headers)

    return wrapped


def resource(path: str, **handles: Handle) -> Route:
    """Return the route of one path, with a handler for each method.

    It answers the other methods with 405. Otherwise the static page, mounted behind it, would answer them.
    """
    by_method = dict(handles)
    if "GET" in by_method:
        by_method.setdefault("HEAD", by_method["GET"])
    allowed = ", ".join(by_method)

    async def handle(request: Request) -> Response:
        if request.method not in by_method:
            message = f"this resource supports {allowed}"
            raise HttpError(405, "method_not_allowed", message, {"Allow": allowed})
        return await by_method[request.method](request)

    return Route(path, _with_error_responses(handle), methods=_METHODS)


async def read_body(request: Request, kind: type[T]) -> T:
    """Read the body and decode it as `kind`. Raises HttpError.

    415: another content type. 413: a body that is too long. 400: invalid JSON. 422: an invalid value.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _JSON_TYPES:
        raise HttpError(415, "unsupported_media_type", "send the body as application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise HttpError(413, "too_large", f"the body must have at most {BODY_LIMIT_BYTES} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except msgspec.ValidationError as error:
        raise HttpError(422, "invalid", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpError(400, "bad_json", f"the body is not JSON: {error}") from None
