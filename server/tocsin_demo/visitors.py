"""Who is looking at the page, and the tokens that let them into the push server.

The application decides who somebody is; the push server only believes its signature. The cookie is signed
with a key of its own, so that it is worth nothing as a token, and a token nothing as a cookie.
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

from tocsin_demo.answers import RefusalError, answer, resource

COOKIE = "tocsin_demo_visitor"
COOKIE_SECONDS = 30 * 24 * 3600
TOKEN_SECONDS = 900  # long enough to be rare, short enough that one sees refreshes work

# fmt: off
_MANNERS = ("amber", "brisk", "calm", "clear", "dapper", "early", "gentle", "hazel", "keen", "mellow",
            "nimble", "olive", "patient", "quiet", "silver", "steady", "sunny", "swift", "tidy", "vivid")
_BIRDS = ("avocet", "bittern", "curlew", "dunlin", "egret", "falcon", "gannet", "heron", "ibis",
          "kestrel", "lapwing", "martin", "nightjar", "osprey", "plover", "siskin", "tern", "wren")
# fmt: on


class Visitor(msgspec.Struct, frozen=True):
    """Somebody with a cookie of ours."""

    user: str
    name: str


class Visitors:
    """Knows everybody by what they bring, and nobody by heart."""

    def __init__(self, token_secret: str, now: Callable[[], float] = time.time) -> None:
        self._token_secret = token_secret
        self._cookie_secret = hmac.digest(token_secret.encode(), b"demo visitor cookie", hashlib.sha256)
        self._now = now

    @property
    def routes(self) -> list[Route]:
        """Where the page asks who it is, and for a token."""
        return [resource("/demo/token", GET=self._token)]

    def of(self, request: Request) -> Visitor:
        """Whose request this is; 401 if it is nobody's."""
        visitor = self._recognise(request)
        if visitor is None:
            raise RefusalError(401, "unknown_visitor", "ask /demo/token first: it tells you who you are")
        return visitor

    def _recognise(self, request: Request) -> Visitor | None:
        cookie = request.cookies.get(COOKIE, "")
        try:
            return Visitor(**_only(jwt.decode(cookie, self._cookie_secret, algorithms=["HS256"])))
        except (jwt.InvalidTokenError, KeyError):
            return None

    async def _token(self, request: Request) -> Response:
        """A fresh token for the visitor we know, or for a new one; `now` lets the page compare clocks."""
        visitor = self._recognise(request) or _somebody()
        now = self._now()
        claims = {"sub": visitor.user, "info": {"name": visitor.name}, "exp": int(now) + TOKEN_SECONDS}
        response = answer(
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


def _somebody() -> Visitor:
    return Visitor(secrets.token_hex(6), f"{secrets.choice(_MANNERS)} {secrets.choice(_BIRDS)}")


def _only(claims: dict[str, str]) -> dict[str, str]:
    return {"user": claims["user"], "name": claims["name"]}
