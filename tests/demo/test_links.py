"""The REST resource over real sockets: what each method answers, and that each change is told."""

import itertools
from typing import Any

import httpx
import pytest

from tests.support.server import Server
from tocsin import Client

_numbers = itertools.count(1)

Json = dict[str, Any]


def a_link() -> Json:
    """Input for a link that no other test has."""
    number = next(_numbers)
    return {"url": f"http://127.0.0.1:9/{number}", "title": f"Link {number}"}


@pytest.fixture
async def link(http: httpx.AsyncClient) -> Json:
    response = await http.post("/links", json=a_link())
    added: Json = response.json()
    return added


async def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_a_link_that_was_added_is_where_its_location_says(http: httpx.AsyncClient) -> None:
    wanted = a_link()
    added = await http.post("/links", json=wanted)
    assert added.status_code == 201
    shown = await http.get(added.headers["Location"])
    assert shown.json() == added.json()
    assert shown.json().items() >= wanted.items()
    assert shown.headers["ETag"] == added.headers["ETag"] == f'"{shown.json()["version"]}"'


async def test_the_list_names_the_version_it_shows(http: httpx.AsyncClient, link: Json) -> None:
    response = await http.get("/links")
    assert link in response.json()["links"]
    assert response.headers["ETag"] == f'"{response.json()["version"]}"'


async def test_whoever_knows_the_version_gets_304_without_a_body(http: httpx.AsyncClient, link: Json) -> None:
    etag = (await http.get("/links")).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"0", {etag}', "*"):
        response = await http.get("/links", headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
    one = await http.get(f"/links/{link['id']}", headers={"If-None-Match": f'"{link["version"]}"'})
    assert one.status_code == 304


async def test_since_a_version_only_what_came_after_it(http: httpx.AsyncClient, link: Json) -> None:
    added = (await http.post("/links", json=a_link())).json()
    await http.delete(f"/links/{link['id']}")
    changes = (await http.get("/links", params={"since": link["version"]})).json()
    assert [one["id"] for one in changes["links"]] == [added["id"]]
    assert [one["id"] for one in changes["deleted"]] == [link["id"]]


async def test_put_replaces_and_patch_changes_what_it_names(http: httpx.AsyncClient, link: Json) -> None:
    path, wanted = f"/links/{link['id']}", a_link()
    put = await http.put(path, json=wanted)
    assert put.status_code == 200
    assert put.json().items() >= wanted.items()
    patched = (await http.patch(path, json={"title": "Only this"})).json()
    assert (patched["title"], patched["url"]) == ("Only this", wanted["url"])
    assert link["version"] < put.json()["version"] < patched["version"]


async def test_what_was_deleted_is_not_found(http: httpx.AsyncClient, link: Json) -> None:
    path = f"/links/{link['id']}"
    assert (await http.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        assert await error_of(await http.request(method, path)) == (404, "not_found")
    assert await error_of(await http.patch(path, json={"title": "B"})) == (404, "not_found")
    assert await error_of(await http.post(f"{path}/check")) == (404, "not_found")


async def test_a_change_meant_for_an_older_version_is_refused(http: httpx.AsyncClient, link: Json) -> None:
    path, known = f"/links/{link['id']}", {"If-Match": f'"{link["version"]}"'}
    assert (await http.patch(path, json={"title": "B"}, headers=known)).status_code == 200
    assert await error_of(await http.patch(path, json={"title": "C"}, headers=known)) == (412, "outdated")
    assert await error_of(await http.delete(path, headers=known)) == (412, "outdated")


async def test_a_url_that_another_link_has_is_a_conflict(http: httpx.AsyncClient, link: Json) -> None:
    again = {"url": link["url"], "title": "again"}
    assert await error_of(await http.post("/links", json=again)) == (409, "taken")
    other = (await http.post("/links", json=a_link())).json()
    assert await error_of(await http.put(f"/links/{other['id']}", json=again)) == (409, "taken")


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"{", (400, "bad_json")),
        (b"", (400, "bad_json")),
        (b"\xff", (400, "bad_json")),
        (b"[" * 10_000, (422, "invalid")),
        (b"[]", (422, "invalid")),
        (b'{"url": "http://a.example"}', (422, "invalid")),
        (b'{"url": "http://a.example", "title": 1}', (422, "invalid")),
        (b'{"url": "http://a.example", "title": ""}', (422, "invalid")),
        (b'{"url": "http://a.example", "title": "  "}', (422, "invalid")),
        (b'{"url": "http://a.example", "title": "A", "id": 7}', (422, "invalid")),
        (b'{"url": "not an address", "title": "A"}', (422, "invalid")),
        (b'{"url": "javascript:alert(1)", "title": "A"}', (422, "invalid")),
        (b'{"title": "' + b"x" * 20_000 + b'"}', (413, "too_large")),
    ],
)
async def test_a_body_that_cannot_be_is_refused_with_a_sentence(
    http: httpx.AsyncClient, body: bytes, answer: tuple[int, str]
) -> None:
    response = await http.post("/links", content=body, headers={"Content-Type": "application/json"})
    assert await error_of(response) == answer
    assert response.json()["error"]["message"]


async def test_a_form_is_not_json(http: httpx.AsyncClient) -> None:
    """Which also keeps other sites' forms from changing anything."""
    assert await error_of(await http.post("/links", data=a_link())) == (415, "unsupported_media_type")


@pytest.mark.parametrize("since", ["-1", "x", "", "9" * 20, "٣"])
async def test_a_since_that_is_no_version_is_refused(http: httpx.AsyncClient, since: str) -> None:
    assert await error_of(await http.get("/links", params={"since": since})) == (400, "bad_query")


@pytest.mark.parametrize("if_match", ['W/"1"', "x", '"9999999999999999999999"'])
async def test_an_if_match_that_is_no_version_matches_nothing(
    http: httpx.AsyncClient, link: Json, if_match: str
) -> None:
    response = await http.delete(f"/links/{link['id']}", headers={"If-Match": if_match})
    assert await error_of(response) == (412, "outdated")


async def test_a_method_that_a_resource_does_not_know_is_answered_with_those_it_does(
    http: httpx.AsyncClient, link: Json
) -> None:
    response = await http.delete("/links")
    assert await error_of(response) == (405, "method_not_allowed")
    assert {*response.headers["Allow"].split(", ")} == {"GET", "HEAD", "POST"}
    response = await http.post(f"/links/{link['id']}", json=a_link())
    assert await error_of(response) == (405, "method_not_allowed")


async def test_each_change_is_told_with_its_version(demo: Server, http: httpx.AsyncClient) -> None:
    """To anybody with a token of the application, on a connection of the real client."""
    token = (await http.get("/demo/token")).json()["token"]
    async with Client(demo.websocket_url, token=token) as client, client.subscribe("links") as told:
        await told.ready()
        link = (await http.post("/links", json=a_link())).json()
        changed = (await http.patch(f"/links/{link['id']}", json={"title": "B"})).json()
        await http.delete(f"/links/{link['id']}")
        news = [(await anext(told)).data for _ in range(3)]
    assert [one["event"] for one in news] == ["added", "changed", "deleted"]
    assert [one["link"] for one in news[:2]] == [link, changed]
    assert news[1]["changed"] == ["title"]
    assert [one["version"] for one in news] == [link["version"], link["version"] + 1, link["version"] + 2]
