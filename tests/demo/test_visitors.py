"""The identity of visitors: one for each cookie, which cannot be forged."""

from collections.abc import Callable

import httpx
import jwt
import pytest
from starlette.applications import Starlette

from tocsin_demo.visitors import COOKIE, TOKEN_SECONDS, Visitors

SECRET = "a secret of thirty-two characters."


@pytest.fixture
def http() -> httpx.AsyncClient:
    app = Starlette(routes=Visitors(SECRET, now=lambda: 1000.0).routes)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://demo.test")


async def identity(http: httpx.AsyncClient) -> dict[str, object]:
    answer: dict[str, object] = (await http.get("/demo/token")).json()
    return answer


async def test_a_visitor_keeps_the_identity_as_long_as_the_cookie(http: httpx.AsyncClient) -> None:
    first, second = await identity(http), await identity(http)
    assert (first["user"], first["name"]) == (second["user"], second["name"])
    http.cookies.clear()
    assert (await identity(http))["user"] != first["user"]


async def test_the_token_contains_the_user_and_its_expiry(http: httpx.AsyncClient) -> None:
    answer = await identity(http)
    claims = jwt.decode(str(answer["token"]), SECRET, algorithms=["HS256"], options={"verify_exp": False})
    assert claims == {"sub": answer["user"], "info": {"name": answer["name"]}, "exp": 1000 + TOKEN_SECONDS}
    assert answer["now"] == 1_000_000.0


async def test_scripts_and_other_sites_cannot_read_the_cookie(http: httpx.AsyncClient) -> None:
    header = (await http.get("/demo/token")).headers["set-cookie"].lower()
    assert "httponly" in header
    assert "samesite=strict" in header


def connection_token(_cookie: str, token: str) -> str:
    return token


def of_another_application(_cookie: str, _token: str) -> str:
    return jwt.encode({"user": "me", "name": "me"}, "another secret of thirty-two chars", algorithm="HS256")


def unsigned(_cookie: str, _token: str) -> str:
    return jwt.encode({"user": "me", "name": "me"}, "", algorithm="none")


def truncated(cookie: str, _token: str) -> str:
    return cookie[:-4]


@pytest.mark.parametrize("forge", [connection_token, of_another_application, unsigned, truncated])
async def test_a_forged_cookie_makes_a_new_visitor(
    http: httpx.AsyncClient, forge: Callable[[str, str], str]
) -> None:
    first = await identity(http)
    forged = forge(str(http.cookies[COOKIE]), str(first["token"]))
    http.cookies.clear()
    http.cookies.set(COOKIE, forged)
    assert (await identity(http))["user"] not in (first["user"], "me")


async def test_a_cookie_is_not_a_valid_token(http: httpx.AsyncClient) -> None:
    await identity(http)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(http.cookies[COOKIE], SECRET, algorithms=["HS256"])
