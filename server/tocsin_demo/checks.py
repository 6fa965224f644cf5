"""Checks: a job of several seconds that is started by a request and reported by publications.

`POST /links/{id}/check` responds 202 with the URL of the check while the check runs on. Clients may poll that
URL, or receive each step on the channel `links`. The status is in the database, so every process can answer
for every check.
"""

import asyncio
import secrets
from types import TracebackType
from typing import Self

import msgspec
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin_demo.check_store import INTERRUPTED, Check, CheckStore
from tocsin_demo.link_check import STATIC_STEPS, check_link, verdict
from tocsin_demo.link_store import Link, LinkStore, NotFoundError
from tocsin_demo.links import link_changed
from tocsin_demo.publishing import LINKS, Publish
from tocsin_demo.responses import HttpError, json_response, resource

CONCURRENT_LIMIT = 4  # checks that run at the same time in this process
CHECK_LIMIT = 20  # checks that run or are queued in this process; more are answered with 503

log = structlog.get_logger()


class CheckEvent(msgspec.Struct, frozen=True, tag="check", tag_field="event"):
    """The publication of one step: the progress of the check, and its latest finding in words."""

    id: str
    link_id: int
    state: str
    done: int
    total: int
    text: str


class Checks:
    """Owns the checks of this process. On exit, those that still run are cancelled and recorded as failed.

    The mutable state is the set of tasks; `_start` adds to it, and each task removes itself.
    """

    def __init__(self, store: LinkStore, check_store: CheckStore, publish: Publish) -> None:
        self._store = store
        self._check_store = check_store
        self._publish = publish
        self._slots = asyncio.Semaphore(CONCURRENT_LIMIT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    @property
    def routes(self) -> list[Route]:
        """The routes that start a check and show one."""
        return [
            resource("/links/{link_id:int}/check", POST=self._start),
            resource("/checks/{check_id}", GET=self._show),
        ]

    async def _start(self, request: Request) -> Response:
        """Respond before the check begins. A link whose check is running gets no second one."""
        if len(self._tasks) >= CHECK_LIMIT:
            raise HttpError(503, "busy", "too many checks are queued", {"Retry-After": "5"})
        try:
            link = await run_in_threadpool(self._store.get, request.path_params["link_id"])
        except NotFoundError:
            raise HttpError(404, "not_found", "there is no such link") from None
        check, is_new = await run_in_threadpool(
            self._check_store.begin, secrets.token_hex(8), link.id, STATIC_STEPS
        )
        if is_new:
            task = self._group.create_task(self._run(check, link))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return json_response(check, 202, {"Location": f"/checks/{check.id}"})

    async def _show(self, request: Request) -> Response:
        check = await run_in_threadpool(self._check_store.get, request.path_params["check_id"])
        if check is None:
            raise HttpError(404, "not_found", "there is no such check")
        return json_response(check)

    async def _run(self, check: Check, link: Link) -> None:
        """Run the check. If it is cancelled or raises, record it as failed."""
        try:
            async with self._slots:
                await self._run_steps(check, link)
        except asyncio.CancelledError:
            self._check_store.save(msgspec.structs.replace(check, state="failed", verdict=INTERRUPTED))
            raise
        except Exception:  # one check must not end the others
            log.exception("check_failed", check=check.id, link=link.id)
            await self._report(msgspec.structs.replace(check, state="failed", verdict="internal error"))

    async def _run_steps(self, check: Check, link: Link) -> None:
        others = (await run_in_threadpool(self._store.changes)).links
        async for finding, total in check_link(link, others):
            check = msgspec.structs.replace(check, findings=[*check.findings, finding], total=total)
            await self._report(check)
        result = verdict(check.findings)
        await self._report(msgspec.structs.replace(check, state="done", verdict=result))
        try:
            changed = await run_in_threadpool(self._store.change, link.id, verdict=result)
        except NotFoundError:
            return  # the link was deleted while its check was running
        await self._publish(LINKS, link_changed(changed, ["verdict"]))

    async def _report(self, check: Check) -> None:
        await run_in_threadpool(self._check_store.save, check)
        text = check.verdict or check.findings[-1].text
        progress = len(check.findings)
        event = CheckEvent(check.id, check.link_id, check.state, progress, check.total, text)
        await self._publish(LINKS, event)
