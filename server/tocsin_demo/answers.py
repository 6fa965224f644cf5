"""JSON in and out of handlers: bounded bodies, typed input, and refusals that say what was wrong."""

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


class RefusalError(Exception):
    """A request that is answered with an error.

    Its HTTP status, a code for programs, a sentence for people.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that no cache keeps without asking again."""
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        headers={"Cache-Control": "no-cache", **(headers or {})},
        media_type="application/json",
    )


def _refusing(handle: Handle) -> Handle:
    """A handler whose refusals become answers."""

    @wraps(handle)
    async def answered(request: Request) -> Response:
        try:
            return await handle(request)
        except RefusalError as refusal:
            error = {"code": refusal.code, "message": refusal.message}
            return answer({"error": error}, refusal.status, refusal.headers)

    return answered


def resource(path: str, **handles: Handle) -> Route:
    """One path and its handlers by method.

    It answers every method itself: a static page mounted behind would else.
    """
    by_method = dict(handles)
    if "GET" in by_method:
        by_method.setdefault("HEAD", by_method["GET"])
    allowed = ", ".join(by_method)

    async def handle(request: Request) -> Response:
        if request.method not in by_method:
            message = f"this resource knows {allowed}"
            raise RefusalError(405, "method_not_allowed", message, {"Allow": allowed})
        return await by_method[request.method](request)

    return Route(path, _refusing(handle), methods=_METHODS)


async def read(request: Request, kind: type[T]) -> T:
    """The body as `kind`.

    415 if it is not JSON by name, 413 if too long, 400 if broken, 422 if it means nothing to us.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _JSON_TYPES:
        raise RefusalError(415, "unsupported_media_type", "send the body as application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise RefusalError(413, "too_large", f"the body may have {BODY_LIMIT_BYTES} bytes at most")
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except msgspec.ValidationError as error:
        raise RefusalError(422, "invalid", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusalError(400, "bad_json", f"the body is not JSON: {error}") from None
