"""The REST resource `/links`: stateless handlers over the store. Each change is published on `links`.

| request                       | response                                                              |
|-------------------------------|-----------------------------------------------------------------------|
| `GET /links[?since=VERSION]`  | 200 {version, links, deleted} with ETag, or 304                       |
| `POST /links` {url, title}    | 201 with Location; 409 if the URL is taken or there are too many      |
| `GET /links/{id}`             | 200 with ETag, or 304                                                 |
| `PUT /links/{id}` {url, title}| 200; with If-Match 412 if the link has changed since; PATCH likewise, |
|                               | with either of the two alone                                          |
| `DELETE /links/{id}`          | 204, or 412                                                           |

Errors: 400 invalid JSON or query, 404 no such link, 413, 415, 422 an invalid value.
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

from tocsin_demo.link_store import (
    LINK_LIMIT,
    DuplicateUrlError,
    LimitReachedError,
    Link,
    LinkStore,
    NotFoundError,
    OutdatedError,
    Tombstone,
)
from tocsin_demo.publishing import LINKS, Publish
from tocsin_demo.responses import HttpError, json_response, read_body, resource
from tocsin_demo.urls import URL_LIMIT, InvalidUrlError, parse_url

Url = Annotated[str, Meta(min_length=1, max_length=URL_LIMIT)]
Title = Annotated[str, Meta(min_length=1, max_length=80, pattern=r"\S")]


class LinkInput(msgspec.Struct, forbid_unknown_fields=True):
    """A complete link: the body of POST and PUT."""

    url: Url
    title: Title


class LinkPatch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PATCH. Absent fields keep their value."""

    url: Url | UnsetType = UNSET
    title: Title | UnsetType = UNSET


class LinkEvent(msgspec.Struct, frozen=True):
    """The publication of one change.

    `version` is that of the store. A client that sees it skip a number requests the changes that it missed.
    """

    event: str  # added, changed, deleted
    version: int
    at: float
    link: Link | Tombstone
    changed: list[str]


def link_changed(link: Link, changed: list[str]) -> LinkEvent:
    """Return the event of a change. `changed` names the fields that have a new value."""
    return LinkEvent("changed", link.version, link.changed_at, link, changed)


class Links:
    """The handlers. They keep no state between requests, so every node can answer every request."""

    def __init__(self, store: LinkStore, publish: Publish) -> None:
        self._store = store
        self._publish = publish

    @property
    def routes(self) -> list[Route]:
        """The routes of the collection and of a single link."""
        one = "/links/{link_id:int}"
        return [
            resource("/links", GET=self._list, POST=self._add),
            resource(one, GET=self._show, PUT=self._replace, PATCH=self._patch, DELETE=self._delete),
        ]

    async def _list(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) < 16):
            raise HttpError(400, "bad_query", "since must be a version, a whole number")
        changes = await run_in_threadpool(self._store.changes, int(since))
        return _unless_cached(request, changes.version, changes)

    async def _add(self, request: Request) -> Response:
        body = await read_body(request, LinkInput)
        _validate_url(body.url)
        with _http_errors():
            link = await run_in_threadpool(self._store.add, body.url, body.title)
        event = LinkEvent("added", link.version, link.changed_at, link, ["url", "title"])
        await self._publish(LINKS, event)
        return json_response(link, 201, {"Location": f"/links/{link.id}", **_etag(link.version)})

    async def _show(self, request: Request) -> Response:
        with _http_errors():
            link = await run_in_threadpool(self._store.get, request.path_params["link_id"])
        return _unless_cached(request, link.version, link)

    async def _replace(self, request: Request) -> Response:
        body = await read_body(request, LinkInput)
        return await self._change(request, {"url": body.url, "title": body.title})

    async def _patch(self, request: Request) -> Response:
        body = msgspec.structs.asdict(await read_body(request, LinkPatch))
        return await self._change(request, {name: text for name, text in body.items() if text is not UNSET})

    async def _change(self, request: Request, fields: dict[str, str]) -> Response:
        if "url" in fields:
            _validate_url(fields["url"])
        link_id, expected = request.path_params["link_id"], _expected_version(request)
        with _http_errors():
            link = await run_in_threadpool(self._store.change, link_id, **fields, expected=expected)
        await self._publish(LINKS, link_changed(link, sorted(fields)))
        return json_response(link, headers=_etag(link.version))

    async def _delete(self, request: Request) -> Response:
        with _http_errors():
            tombstone = await run_in_threadpool(
                self._store.remove, request.path_params["link_id"], _expected_version(request)
            )
        event = LinkEvent("deleted", tombstone.version, tombstone.changed_at, tombstone, [])
        await self._publish(LINKS, event)
        return Response(status_code=204)


@contextmanager
def _http_errors() -> Iterator[None]:
    """Turn errors of the store into error responses."""
    try:
        yield
    except NotFoundError:
        raise HttpError(404, "not_found", "there is no such link") from None
    except DuplicateUrlError:
        raise HttpError(409, "taken", "another link has this url") from None
    except LimitReachedError:
        raise HttpError(409, "full", f"the limit of {LINK_LIMIT} links is reached") from None
    except OutdatedError:
        raise HttpError(412, "outdated", "the link has changed since the version in If-Match") from None


def _validate_url(url: str) -> None:
    try:
        parse_url(url)
    except InvalidUrlError as error:
        raise HttpError(422, "invalid", f"url {error}") from None


def _etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}


def _unless_cached(request: Request, version: int, content: object) -> Response:
    """Return the content, or 304 if If-None-Match contains this version (RFC 9110 §13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if f'"{version}"' in known or known == ["*"]:
        return Response(status_code=304, headers={"Cache-Control": "no-cache", **_etag(version)})
    return json_response(content, headers=_etag(version))


def _expected_version(request: Request) -> int | None:
    """Return the version in If-Match, or None if the caller accepts any version."""
    tag = request.headers.get("if-match", "*").strip()
    if tag == "*":
        return None
    digits = tag.strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise HttpError(412, "outdated", "If-Match is not a version of a link")
    return int(digits)
