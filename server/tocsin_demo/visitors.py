"""Visitors of the page, and the tokens with which they connect to the push server.

The application identifies a visitor by a signed cookie; the push server only verifies the token's signature.
The two are signed with different keys, so a cookie is not a valid token, and a token is not a valid cookie.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

import jwt
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin_demo.responses import HttpError, json_response, resource

COOKIE = "tocsin_demo_visitor"
COOKIE_SECONDS = 30 * 24 * 3600
TOKEN_SECONDS = 900  # long enough to be rare, short enough that the page shows refreshes

# fmt: off
_ADJECTIVES = ("amber", "brisk", "calm", "clear", "dapper", "early", "gentle", "hazel", "keen", "mellow",
            "nimble", "olive", "patient", "quiet", "silver", "steady", "sunny", "swift", "tidy", "vivid")
_BIRDS = ("avocet", "bittern", "curlew", "dunlin", "egret", "falcon", "gannet", "heron", "ibis",
          "kestrel", "lapwing", "martin", "nightjar", "osprey", "plover", "siskin", "tern", "wren")
# fmt: on


class Visitor(msgspec.Struct, frozen=True):
    """The identity in a valid cookie."""

    user: str
    name: str


class Visitors:
    """Issues cookies and tokens, and reads cookies. It stores no visitors."""

    def __init__(self, token_secret: str, now: Callable[[], float] = time.time) -> None:
        self._token_secret = token_secret
        self._cookie_secret = hmac.digest(token_secret.encode(), b"demo visitor cookie", hashlib.sha256)
        self._now = now

    @property
    def routes(self) -> list[Route]:
        """The route where the page obtains its identity and a connection token."""
        return [resource("/demo/token", GET=self._token)]

    def require(self, request: Request) -> Visitor:
        """Return the visitor who sent this request. Raises HttpError 401 without a valid cookie."""
        visitor = self._from_cookie(request)
        if visitor is None:
            raise HttpError(401, "unknown_visitor", "request /demo/token first: it sets the visitor's cookie")
        return visitor

    def _from_cookie(self, request: Request) -> Visitor | None:
        cookie = request.cookies.get(COOKIE, "")
        try:
            claims = jwt.decode(cookie, self._cookie_secret, algorithms=["HS256"])
            return Visitor(claims["user"], claims["name"])
        except (jwt.InvalidTokenError, KeyError):
            return None

    async def _token(self, request: Request) -> Response:
        """Return a token for this visitor, or for a new one. `now` lets the page compare clocks."""
        visitor = self._from_cookie(request) or _new_visitor()
        now = self._now()
        claims = {"sub": visitor.user, "info": {"name": visitor.name}, "exp": int(now) + TOKEN_SECONDS}
        response = json_response(
            {
                "token": jwt.encode(claims, self._token_secret, algorithm="HS256"),
                "user": visitor.user,
                "name": visitor.name,
                "now": round(self._now() * 1000, 1),
            },
            headers={"Cache-Control": "no-store"},
        )
        response.set_cookie(
            COOKIE,
            jwt.encode(msgspec.structs.asdict(visitor), self._cookie_secret, algorithm="HS256"),
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response


def _new_visitor() -> Visitor:
    return Visitor(secrets.token_hex(6), f"{secrets.choice(_ADJECTIVES)} {secrets.choice(_BIRDS)}")
