"""The REST resource `/links`: stateless handlers over the store, each change told on the channel `links`.

| request                       | answers                                                               |
|-------------------------------|-----------------------------------------------------------------------|
| `GET /links[?since=VERSION]`  | 200 {version, links, deleted} with ETag, or 304                       |
| `POST /links` {url, title}    | 201 with Location; 409 if the URL is taken or there are too many      |
| `GET /links/{id}`             | 200 with ETag, or 304                                                 |
| `PUT /links/{id}` {url, title}| 200; with If-Match 412 if the link has changed since; PATCH likewise, |
|                               | with either of the two alone                                          |
| `DELETE /links/{id}`          | 204, or 412                                                           |

Besides: 400 broken JSON or query, 404 no such link, 413, 415, 422 a value that cannot be.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin_demo.addresses import URL_LIMIT, NotAnAddressError, parse
from tocsin_demo.announcer import LINKS, Announce
from tocsin_demo.answers import RefusalError, answer, read, resource
from tocsin_demo.store import (
    LINK_LIMIT,
    FullError,
    Link,
    MissingError,
    OutdatedError,
    Store,
    TakenError,
    Tombstone,
)

Url = Annotated[str, Meta(min_length=1, max_length=URL_LIMIT)]
Title = Annotated[str, Meta(min_length=1, max_length=80, pattern=r"\S")]


class LinkInput(msgspec.Struct, forbid_unknown_fields=True):
    """A whole link, as POST and PUT want it."""

    url: Url
    title: Title


class LinkPatch(msgspec.Struct, forbid_unknown_fields=True):
    """What PATCH shall change; what is absent stays."""

    url: Url | UnsetType = UNSET
    title: Title | UnsetType = UNSET


class LinkNews(msgspec.Struct, frozen=True):
    """What the channel hears of a change.

    `version` as in the store: a jump tells a listener to read what it missed.
    """

    event: str  # added, changed, deleted
    version: int
    at: float
    link: Link | Tombstone
    changed: list[str]


def link_changed(link: Link, changed: list[str]) -> LinkNews:
    """News of a change; `changed` names the fields that are different now."""
    return LinkNews("changed", link.version, link.changed_at, link, changed)


class Links:
    """The handlers. They keep nothing between requests, so any node may answer any of them."""

    def __init__(self, store: Store, announce: Announce) -> None:
        self._store = store
        self._announce = announce

    @property
    def routes(self) -> list[Route]:
        """The collection and one link of it."""
        one = "/links/{link_id:int}"
        return [
            resource("/links", GET=self._list, POST=self._add),
            resource(one, GET=self._show, PUT=self._replace, PATCH=self._patch, DELETE=self._delete),
        ]

    async def _list(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < 16):
            raise RefusalError(400, "bad_query", "since must be a version, a whole number")
        changes = await run_in_threadpool(self._store.changes, int(since))
        return _unless_known(request, changes.version, changes)

    async def _add(self, request: Request) -> Response:
        wanted = await read(request, LinkInput)
        _must_be_an_address(wanted.url)
        with _refusals():
            link = await run_in_threadpool(self._store.add, wanted.url, wanted.title)
        news = LinkNews("added", link.version, link.changed_at, link, ["url", "title"])
        await self._announce(LINKS, news)
        return answer(link, 201, {"Location": f"/links/{link.id}", **_etag(link.version)})

    async def _show(self, request: Request) -> Response:
        with _refusals():
            link = await run_in_threadpool(self._store.get, request.path_params["link_id"])
        return _unless_known(request, link.version, link)

    async def _replace(self, request: Request) -> Response:
        wanted = await read(request, LinkInput)
        return await self._change(request, {"url": wanted.url, "title": wanted.title})

    async def _patch(self, request: Request) -> Response:
        wanted = msgspec.structs.asdict(await read(request, LinkPatch))
        return await self._change(request, {name: text for name, text in wanted.items() if text is not UNSET})

    async def _change(self, request: Request, wanted: dict[str, str]) -> Response:
        if "url" in wanted:
            _must_be_an_address(wanted["url"])
        link_id, expected = request.path_params["link_id"], _expected(request)
        with _refusals():
            link = await run_in_threadpool(self._store.change, link_id, **wanted, expected=expected)
        await self._announce(LINKS, link_changed(link, sorted(wanted)))
        return answer(link, headers=_etag(link.version))

    async def _delete(self, request: Request) -> Response:
        with _refusals():
            tombstone = await run_in_threadpool(
                self._store.remove, request.path_params["link_id"], _expected(request)
            )
        news = LinkNews("deleted", tombstone.version, tombstone.changed_at, tombstone, [])
        await self._announce(LINKS, news)
        return Response(status_code=204)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the store would not do, as an answer."""
    try:
        yield
    except MissingError:
        raise RefusalError(404, "not_found", "there is no such link") from None
    except TakenError:
        raise RefusalError(409, "taken", "another link has this url") from None
    except FullError:
        raise RefusalError(409, "full", f"there are {LINK_LIMIT} links, and no more are kept") from None
    except OutdatedError:
        raise RefusalError(412, "outdated", "the link has changed since the version in If-Match") from None


def _must_be_an_address(url: str) -> None:
    try:
        parse(url)
    except NotAnAddressError as error:
        raise RefusalError(422, "invalid", f"url {error}") from None


def _etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}


def _unless_known(request: Request, version: int, content: object) -> Response:
    """The content, or 304 if the caller's If-None-Match shows that it has this version (RFC 9110 §13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if f'"{version}"' in known or known == ["*"]:
        return Response(status_code=304, headers={"Cache-Control": "no-cache", **_etag(version)})
    return answer(content, headers=_etag(version))


def _expected(request: Request) -> int | None:
    """The version in If-Match that a change is meant for; None if the caller does not mind."""
    tag = request.headers.get("if-match", "*").strip()
    if tag == "*":
        return None
    digits = tag.strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise RefusalError(412, "outdated", "If-Match is not a version of a link")
    return int(digits)
