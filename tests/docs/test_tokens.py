"""docs/tokens.md: its commands, its programs and its tables of claims, against a real server."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
from msgspec import Struct
from playwright.async_api import Browser, Route, expect

from tests.docs.conversation import call_api, conversing
from tests.docs.examples import Example, agrees, free_ports, page, running, shell
from tests.support.server import Server
from tests.support.timing import SOON
from tests.support.tokens import connection_token, seconds_from_now
from tocsin_server.config.token_keys import HMAC_ALGORITHMS, PUBLIC_KEY_ALGORITHMS
from tocsin_server.core.tokens import (
    ConnectionClaims,
    Override,
    SubscriptionClaims,
    SubscriptionGrant,
)

PAGE = page("tokens.md")
SECRET = PAGE.config["client"]["token_hmac_secret"]
TIMES = {"PAST": -3600, "FUTURE": 3600}
CONNECT = """
→ {"id":1,"connect":{"token":"ANN"}}
← {"id":1,"connect":{"client":"…","version":"…","ping":2,"pong":true,"node":"…"}}
"""


def token(claims: dict[str, Any]) -> str:
    """A token with these claims, in which the page's words for times are times."""
    filled = {
        name: seconds_from_now(TIMES[value]) if value in ("PAST", "FUTURE") else value
        for name, value in claims.items()
    }
    return jwt.PyJWS().encode(json.dumps(filled).encode(), SECRET, algorithm="HS256")


def claims_above(example: Example) -> dict[str, Any]:
    """The JSON block before a conversation."""
    before = PAGE.examples[PAGE.examples.index(example) - 1]
    assert before.language == "json"
    claims: dict[str, Any] = json.loads(before.text)
    return claims


def answers(heading: str) -> list[tuple[str, str]]:
    """The rows of a section's table of claims and answers."""
    section = PAGE.text.partition(f"## {heading}")[2].partition("\n## ")[0]
    return re.findall(r"(?m)^\| `(\{.*\})` \| (.+) \|$", section)


@pytest.mark.parametrize(
    "example", [example for example in PAGE.of("sh") if example.output], ids=lambda example: example.heading
)
async def test_a_command_prints_the_output_shown(documented: Server, folder: Path, example: Example) -> None:
    printed = await shell(example.text, folder, TOCSIN=documented.url)
    assert agrees(example.output, printed), printed


@pytest.mark.parametrize("example", PAGE.of("frames"), ids=lambda example: example.heading)
async def test_a_conversation_takes_place_as_written(documented: Server, example: Example) -> None:
    words = {"TOKEN": token(claims_above(example)), "ANN": connection_token("ann", secret=SECRET)}
    async with conversing(documented.url, words) as conversation:
        if '"connect"' not in example.text.splitlines()[0]:
            await conversation.play(CONNECT)
        await conversation.play(example.text)


@pytest.mark.parametrize(
    "command", ['tocsin token --user ann --info \'{"name": "Ann"}\'', "python sign.py", "node sign.mjs"]
)
async def test_a_token_of_each_program_has_the_user_and_the_info(
    documented: Server, folder: Path, command: str
) -> None:
    printed = await shell(command, folder, TOCSIN_CLIENT__TOKEN_HMAC_SECRET=SECRET)
    claims = jwt.decode(printed.strip(), SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["info"]) == ("ann", {"name": "Ann"})
    assert claims["exp"] > seconds_from_now(500)


@pytest.mark.parametrize(("claims", "answer"), answers("Claims of a connection token"))
async def test_a_connect_with_these_claims_is_answered_so(
    documented: Server, claims: str, answer: str
) -> None:
    async with conversing(documented.url, {"TOKEN": token(json.loads(claims))}) as conversation:
        await conversation.send('{"id":1,"connect":{"token":"TOKEN"}}')
        assert answer == described(await conversation.next(), "connected")


@pytest.mark.parametrize(("claims", "answer"), answers("Claims of a subscription token"))
async def test_a_subscribe_with_these_claims_is_answered_so(
    documented: Server, claims: str, answer: str
) -> None:
    words = {"TOKEN": token(json.loads(claims)), "ANN": connection_token("ann", secret=SECRET)}
    async with conversing(documented.url, words) as conversation:
        await conversation.play(CONNECT)
        await conversation.send('{"id":2,"subscribe":{"channel":"private:7","token":"TOKEN"}}')
        assert answer == described(await conversation.next(), "subscribed")


def described(message: str, success: str) -> str:
    """A reply or a close, as the tables of the page write it."""
    if message.startswith("close"):
        return message
    error = json.loads(message).get("error")
    return f"error {error['code']} {error['message']}" if error else success


@pytest.mark.parametrize(
    ("heading", "claims"),
    [
        ("Claims of a connection token", ConnectionClaims),
        ("Claims of a connection token", SubscriptionGrant),
        ("Claims of a connection token", Override),
        ("Claims of a subscription token", SubscriptionClaims),
    ],
)
def test_the_page_names_every_claim(heading: str, claims: type[Struct]) -> None:
    section = PAGE.text.partition(f"## {heading}")[2].partition("\n## ")[0]
    assert [claim for claim in claims.__struct_fields__ if f"`{claim}`" not in section] == []


def test_the_page_names_every_algorithm() -> None:
    rows = dict(re.findall(r"(?m)^\| `client\.(token_\w+)` \| (.+) \|$", PAGE.text))
    assert rows == {
        "token_hmac_secret": ", ".join(HMAC_ALGORITHMS),
        "token_public_key": ", ".join(PUBLIC_KEY_ALGORITHMS),
    }


@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_gets_its_token_from_the_back_end(
    documented: Server, folder: Path, browser: Browser
) -> None:
    """Its first token has expired already, so that it also gets a second one."""
    tokens = [connection_token("ann", secret=SECRET, exp=seconds_from_now(-60))]

    async def answer(route: Route) -> None:
        if tokens:
            await route.fulfill(json={"token": tokens.pop(), "tocsin": documented.url})
        else:
            await route.continue_()

    ports = free_ports("8001")
    statuses: asyncio.Queue[int] = asyncio.Queue()
    async with running(
        f"uvicorn backend:app --port {ports['8001']}", folder, ports["8001"], TOCSIN=documented.url
    ):
        opened = await browser.new_page()
        await opened.route("**/token", answer)
        opened.on("response", lambda got: statuses.put_nowait(got.status) if "/events" in got.url else None)
        await opened.goto(f"http://127.0.0.1:{ports['8001']}/")
        async with asyncio.timeout(SOON):
            assert [await statuses.get(), await statuses.get()] == [401, 200]
        await call_api(documented.url, "publish", '{"channel": "club:1", "data": "hello"}')
        await expect(opened.locator("#messages li")).to_have_text(["hello"])
        await opened.close()
