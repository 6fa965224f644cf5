"""What the application of every page in docs/integrate/ must do. `make test-guides` runs this file."""

from __future__ import annotations

import asyncio
import hmac
import json
import time

import pytest
from playwright.async_api import Browser, expect

from tests.guides.applications import PASSWORD, Application, Json, Visitor
from tests.guides.subscriber import subscribing
from tests.support.timing import SOON, TICK

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_wrong_password_and_an_unknown_user_are_refused(application: Application) -> None:
    for name, password in (("ann", "wrong"), ("dora", "wrong"), ("dora", "")):
        visitor = Visitor(application, name)
        async with visitor.http:
            assert (await visitor.log_in(password)).status_code == 401
            for path in ("/me", "/notes", "/online"):
                assert (await visitor.http.get(path)).status_code == 401, path
            assert (await visitor.post("/notes", text="a note")).status_code == 401


async def test_the_cookie_of_the_session_is_for_the_application_only(application: Application) -> None:
    """Scripts cannot read it, and other sites cannot have it sent."""
    visitor = Visitor(application, "ann")
    async with visitor.http:
        cookies = (await visitor.log_in()).headers.get_list("set-cookie")
    session = [cookie.lower() for cookie in cookies if "httponly" in cookie.lower()]
    assert session
    assert all("samesite=lax" in cookie for cookie in session)


async def test_a_request_that_another_site_can_make_changes_nothing(application: Application) -> None:
    """A browser sends a body of this type to any site, without asking it."""
    async with application.visitor("ann") as ann:
        before = await ann.get("/notes")
        body = '{"text": "forged"}' if not application.guide.sends_forms else "text=forged"
        kind = "text/plain" if not application.guide.sends_forms else "application/x-www-form-urlencoded"
        response = await ann.http.post("/notes", content=body, headers={"Content-Type": kind})
        assert 400 <= response.status_code < 500
        assert await ann.get("/notes") == before


async def test_members_of_a_team_receive_a_note_once_it_is_stored(application: Application) -> None:
    async with application.visitor("ann") as ann, application.visitor("ben") as ben:
        async with subscribing(application, "team:red", ben) as of_ben:
            await of_ben.next("subscribed")
            response = await ann.post("/notes", text="grüße ✓")
            assert response.status_code == 201, response.text
            note = response.json()
            assert (note["author"], note["text"]) == ("ann", "grüße ✓")
            assert await of_ben.next("publication") == note
        assert note in (await ben.get("/notes"))["notes"]


async def test_a_note_that_is_rolled_back_is_not_published(application: Application) -> None:
    """The team may store one note. The second is inserted, and then its transaction fails."""
    async with application.visitor("cleo") as cleo:
        assert (await cleo.post("/notes", text="the first")).status_code == 201
        assert (await cleo.post("/notes", text="the second")).status_code == 409
        assert [note["text"] for note in (await cleo.get("/notes"))["notes"]] == ["the first"]
    history = await application.call("history", channel="team:blue", limit=10)
    assert [each["data"]["text"] for each in history["publications"]] == ["the first"]


@pytest.mark.needs_tocsin_beside
async def test_a_note_is_stored_while_tocsin_cannot_be_reached(application: Application) -> None:
    """The request succeeds, and the next publication arrives again."""
    async with application.visitor("ann") as ann:
        async with application.without_tocsin():
            response = await ann.post("/notes", text="not published")
            assert response.status_code == 201, response.text
        assert response.json() in (await ann.get("/notes"))["notes"]
        async with subscribing(application, "team:red", ann) as of_ann:
            await of_ann.next("subscribed")
            note = (await ann.post("/notes", text="published")).json()
            assert await of_ann.next("publication") == note


async def test_a_user_cannot_subscribe_to_the_channel_of_another_team(application: Application) -> None:
    """A subscription token for another channel disconnects the client. Without one, the error says why."""
    async with application.visitor("cleo") as cleo, subscribing(application, "team:red", cleo) as subscriber:
        has_subscription_token = "subscription_token" in await cleo.get("/me")
        kind, code = await subscriber.first_of("subscribed", "refused")
        assert (kind, code) == ("refused", 3500 if has_subscription_token else 103)


async def until_all_have_left(application: Application, channel: str) -> None:
    """Wait until the clients of earlier tests have left a channel."""
    async with asyncio.timeout(SOON):
        while (await application.call("presence_stats", channel=channel))["num_clients"]:  # noqa: ASYNC110 - the resource has to be polled
            await asyncio.sleep(TICK)


async def test_a_client_without_an_identity_is_refused(application: Application) -> None:
    """At its connect or its subscribe command."""
    await until_all_have_left(application, "team:red")
    async with subscribing(application, "team:red") as subscriber:
        assert (await subscriber.first_of("subscribed", "refused"))[0] == "refused"
    assert (await application.call("presence_stats", channel="team:red"))["num_clients"] == 0


async def test_the_application_shows_who_is_there(application: Application) -> None:
    await until_all_have_left(application, "team:red")
    async with application.visitor("ann") as ann, application.visitor("ben") as ben:
        assert await ann.get("/online") == {"users": []}
        async with subscribing(application, "team:red", ann) as of_ann:
            await of_ann.next("subscribed")
            async with subscribing(application, "team:red", ben) as of_ben:
                await of_ben.next("subscribed")
                assert await ann.get("/online") == {"users": ["ann", "ben"]}
            while await of_ann.next("leave") != "ben":
                pass
            assert await ben.get("/online") == {"users": ["ann"]}


async def test_the_application_is_told_who_came_and_went(application: Application) -> None:
    async with application.visitor("ann") as ann, application.visitor("ben") as ben:
        async with subscribing(application, "team:red", ann) as of_ann:
            await of_ann.next("subscribed")
            came = await visits_of(ben, "ann", "connected")
        went = await visits_of(ben, "ann", "disconnected")
        assert went[: len(came)] == came
        assert [visit["type"] for visit in went[-2:]] == ["connected", "disconnected"]
        assert went[-2]["time"] <= went[-1]["time"]


async def visits_of(visitor: Visitor, user: str, last: str) -> list[Json]:
    """What the application was told of this user, once the last event is of this type."""
    async with asyncio.timeout(SOON):
        while True:
            told = [visit for visit in (await visitor.get("/visits"))["visits"] if visit["user"] == user]
            if told and told[-1]["type"] == last:
                return told
            await asyncio.sleep(TICK)


def signed(body: bytes, secret: str, seconds_ago: int = 0) -> dict[str, str]:
    """The headers of a webhook's request with this body."""
    second = int(time.time()) - seconds_ago
    digest = hmac.new(secret.encode(), f"{second}.".encode() + body, "sha256").hexdigest()
    return {"Content-Type": "application/json", "X-Tocsin-Signature": f"t={second},v1={digest}"}


@pytest.mark.needs_tocsin_beside
async def test_only_what_tocsin_signed_is_accepted_and_only_once(application: Application) -> None:
    secret = application.secrets["TOCSIN_WEBHOOKS__BOARD__SECRETS"]
    event = {"type": "connected", "id": "a repeated event", "user": "cleo", "client": "1", "time": 1.5}
    body = json.dumps({"delivery": "d1", "events": [event]}).encode()
    valid = signed(body, secret)
    refused = [
        (body, {"Content-Type": "application/json"}),
        (body, signed(body, "another secret")),
        (body, signed(body, secret, seconds_ago=3600)),
        (body.replace(b"cleo", b"ben"), valid),
        *((body, {**valid, "X-Tocsin-Signature": forged}) for forged in ("", "t=,v1=", "v1=0", "t=1,t=2,v1")),
    ]
    async with application.visitor("cleo") as cleo:
        before = (await cleo.get("/visits"))["visits"]
        for content, headers in refused:
            response = await cleo.http.post("/tocsin/events", content=content, headers=headers)
            assert response.status_code == 401, (headers, response.text)
        assert (await cleo.get("/visits"))["visits"] == before
        both = signed(body, secret)
        both["X-Tocsin-Signature"] += ",v1=" + "0" * 64  # that of a next secret
        for headers in (valid, both):
            response = await cleo.http.post("/tocsin/events", content=body, headers=headers)
            assert response.status_code == 204
        told = (await cleo.get("/visits"))["visits"]
        assert [visit for visit in told if visit["time"] == 1.5] == [
            {"type": "connected", "user": "cleo", "time": 1.5}
        ]


async def test_the_page_shows_the_notes_and_the_members(application: Application, browser: Browser) -> None:
    """Two browsers, from the login on."""
    pages = []
    for name in ("ann", "ben"):
        context = await browser.new_context()
        opened = await context.new_page()
        await opened.goto(application.url)
        await opened.fill("[name=username]", name)
        await opened.fill("[name=password]", PASSWORD)
        await opened.click("#login button")
        await expect(opened.locator("#online")).to_contain_text(name)
        pages.append(opened)
    of_ann, of_ben = pages
    await expect(of_ann.locator("#online")).to_have_text("ann, ben")
    await of_ann.fill("[name=text]", "shown <b>as text</b>")
    await of_ann.click("#add button")
    for opened in pages:
        await expect(opened.locator("#notes li").last).to_have_text("ann: shown <b>as text</b>")
    await of_ben.context.close()
    await expect(of_ann.locator("#online")).to_have_text("ann")
    await of_ann.context.close()
