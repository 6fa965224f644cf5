"""Checks over real sockets: accepted at once, followed by polling or by events, and always ended."""

import itertools
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.demo.conftest import running_demo
from tests.support.server import Server
from tocsin import Client, Subscription

_numbers = itertools.count(1)

Json = dict[str, Any]


@pytest.fixture
async def link(demo: Server, http: httpx.AsyncClient) -> Json:
    """A link to the node itself."""
    wanted = {"url": f"{demo.url}/health/live?{next(_numbers)}", "title": "Alive?"}
    link: Json = (await http.post("/links", json=wanted)).json()
    return link


async def next_event(events: Subscription, link: Json) -> Json:
    """The next event of this link. Checks of other tests may be running."""
    while True:
        event: Json = (await anext(events)).data
        if link["id"] in (event.get("link_id"), event.get("link", {}).get("id")):
            return event


async def test_a_check_is_accepted_at_once_and_can_be_read(http: httpx.AsyncClient, link: Json) -> None:
    response = await http.post(f"/links/{link['id']}/check")
    assert response.status_code == 202
    shown = await http.get(response.headers["Location"])
    assert (shown.json()["id"], shown.json()["link_id"]) == (response.json()["id"], link["id"])


async def test_each_step_and_the_verdict_are_published(
    demo: Server, http: httpx.AsyncClient, link: Json
) -> None:
    """Then the change of the link is published, which stores the verdict."""
    token = (await http.get("/demo/token")).json()["token"]
    async with Client(demo.websocket_url, token=token) as client, client.subscribe("links") as events:
        await events.ready()
        check = (await http.post(f"/links/{link['id']}/check")).json()
        received = [await next_event(events, link)]
        while received[-1]["event"] != "changed":
            received.append(await next_event(events, link))
    *steps, changed = received
    assert {one["id"] for one in steps} == {check["id"]}
    assert [one["done"] for one in steps] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert steps[-1]["state"] == "done"
    assert steps[-1]["text"].startswith("answered 5 of 5 times")
    assert changed["link"]["verdict"] == steps[-1]["text"]
    shown = (await http.get(f"/checks/{check['id']}")).json()
    assert (shown["state"], shown["verdict"]) == ("done", steps[-1]["text"])


async def test_an_unknown_check_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.get("/checks/none")
    assert response.status_code == 404


def test_a_check_that_a_restart_interrupted_has_failed(tmp_path: Path) -> None:
    """The database outlives the process, and the check does not."""
    database = tmp_path / "demo.sqlite"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # so that the check does not end before the demo
        wanted = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "title": "Never answers"}
        for demo in running_demo(database):
            link = httpx.post(f"{demo.url}/links", json=wanted).json()
            check = httpx.post(f"{demo.url}/links/{link['id']}/check").json()
    for demo in running_demo(database):
        shown = httpx.get(f"{demo.url}/checks/{check['id']}").json()
        assert shown["state"] == "failed"
        assert shown["verdict"].startswith("interrupted")
