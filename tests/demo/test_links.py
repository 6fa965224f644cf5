"""The REST resource over real sockets: the response to each method, and the event of each change."""

import itertools
from typing import Any

import httpx
import pytest

from tests.support.server import Server
from tocsin import Client

_numbers = itertools.count(1)

Json = dict[str, Any]


def new_link() -> Json:
    """The body of a link that no other test uses."""
    number = next(_numbers)
    return {"url": f"http://127.0.0.1:9/{number}", "title": f"Link {number}"}


@pytest.fixture
async def link(http: httpx.AsyncClient) -> Json:
    response = await http.post("/links", json=new_link())
    added: Json = response.json()
    return added


async def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_an_added_link_is_found_at_its_location(http: httpx.AsyncClient) -> None:
    wanted = new_link()
    added = await http.post("/links", json=wanted)
    assert added.status_code == 201
    shown = await http.get(added.headers["Location"])
    assert shown.json() == added.json()
    assert shown.json().items() >= wanted.items()
    assert shown.headers["ETag"] == added.headers["ETag"] == f'"{shown.json()["version"]}"'


async def test_the_list_has_the_version_in_its_etag(http: httpx.AsyncClient, link: Json) -> None:
    response = await http.get("/links")
    assert link in response.json()["links"]
    assert response.headers["ETag"] == f'"{response.json()["version"]}"'


async def test_a_client_that_knows_the_version_gets_304_without_a_body(
    http: httpx.AsyncClient, link: Json
) -> None:
    etag = (await http.get("/links")).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"0", {etag}', "*"):
        response = await http.get("/links", headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
    one = await http.get(f"/links/{link['id']}", headers={"If-None-Match": f'"{link["version"]}"'})
    assert one.status_code == 304


async def test_since_a_version_only_later_changes_are_returned(http: httpx.AsyncClient, link: Json) -> None:
    added = (await http.post("/links", json=new_link())).json()
    await http.delete(f"/links/{link['id']}")
    changes = (await http.get("/links", params={"since": link["version"]})).json()
    assert [one["id"] for one in changes["links"]] == [added["id"]]
    assert [one["id"] for one in changes["deleted"]] == [link["id"]]


async def test_put_replaces_a_link_and_patch_changes_the_given_fields(
    http: httpx.AsyncClient, link: Json
) -> None:
    path, wanted = f"/links/{link['id']}", new_link()
    put = await http.put(path, json=wanted)
    assert put.status_code == 200
    assert put.json().items() >= wanted.items()
    patched = (await http.patch(path, json={"title": "Only this"})).json()
    assert (patched["title"], patched["url"]) == ("Only this", wanted["url"])
    assert link["version"] < put.json()["version"] < patched["version"]


async def test_a_deleted_link_is_not_found(http: httpx.AsyncClient, link: Json) -> None:
    path = f"/links/{link['id']}"
    assert (await http.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        assert await error_of(await http.request(method, path)) == (404, "not_found")
    assert await error_of(await http.patch(path, json={"title": "B"})) == (404, "not_found")
    assert await error_of(await http.post(f"{path}/check")) == (404, "not_found")


async def test_a_change_of_an_older_version_is_refused(http: httpx.AsyncClient, link: Json) -> None:
    path, known = f"/links/{link['id']}", {"If-Match": f'"{link["version"]}"'}
    assert (await http.patch(path, json={"title": "B"}, headers=known)).status_code == 200
    assert await error_of(await http.patch(path, json={"title": "C"}, headers=known)) == (412, "outdated")
    assert await error_of(await http.delete(path, headers=known)) == (412, "outdated")


async def test_a_url_of_another_link_is_a_conflict(http: httpx.AsyncClient, link: Json) -> None:
    again = {"url": link["url"], "title": "again"}
    assert await error_of(await http.post("/links", json=again)) == (409, "taken")
    other = (await http.post("/links", json=new_link())).json()
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
async def test_an_invalid_body_is_refused_with_a_sentence(
    http: httpx.AsyncClient, body: bytes, answer: tuple[int, str]
) -> None:
    response = await http.post("/links", content=body, headers={"Content-Type": "application/json"})
    assert await error_of(response) == answer
    assert response.json()["error"]["message"]


async def test_a_form_is_refused(http: httpx.AsyncClient) -> None:
    """Forms of other sites therefore cannot change links."""
    assert await error_of(await http.post("/links", data=new_link())) == (415, "unsupported_media_type")


@pytest.mark.parametrize("since", ["-1", "x", "", "9" * 20, "٣"])
async def test_an_invalid_since_is_refused(http: httpx.AsyncClient, since: str) -> None:
    assert await error_of(await http.get("/links", params={"since": since})) == (400, "bad_query")


@pytest.mark.parametrize("if_match", ['W/"1"', "x", '"9999999999999999999999"'])
async def test_an_invalid_if_match_matches_no_version(
    http: httpx.AsyncClient, link: Json, if_match: str
) -> None:
    response = await http.delete(f"/links/{link['id']}", headers={"If-Match": if_match})
    assert await error_of(response) == (412, "outdated")


async def test_an_unsupported_method_is_answered_with_the_supported_ones(
    http: httpx.AsyncClient, link: Json
) -> None:
    response = await http.delete("/links")
    assert await error_of(response) == (405, "method_not_allowed")
    assert {*response.headers["Allow"].split(", ")} == {"GET", "HEAD", "POST"}
    response = await http.post(f"/links/{link['id']}", json=new_link())
    assert await error_of(response) == (405, "method_not_allowed")


async def test_each_change_is_published_with_its_version(demo: Server, http: httpx.AsyncClient) -> None:
    """A client of the Python SDK receives it with a token of the application."""
    token = (await http.get("/demo/token")).json()["token"]
    async with Client(demo.websocket_url, token=token) as client, client.subscribe("links") as events:
        await events.ready()
        link = (await http.post("/links", json=new_link())).json()
        changed = (await http.patch(f"/links/{link['id']}", json={"title": "B"})).json()
        await http.delete(f"/links/{link['id']}")
        received = [(await anext(events)).data for _ in range(3)]
    assert [one["event"] for one in received] == ["added", "changed", "deleted"]
    assert [one["link"] for one in received[:2]] == [link, changed]
    assert received[1]["changed"] == ["title"]
    assert [one["version"] for one in received] == [link["version"], link["version"] + 1, link["version"] + 2]
