"""The slow job: checking a link takes seconds, a request should not.

`POST /links/{id}/check` answers 202 with where to look, and the work goes on. Whoever polls looks there;
whoever listens on the channel `links` hears of each step. The status is in the database, so any process can
answer for any job.
"""

import asyncio
import logging
import secrets
from types import TracebackType
from typing import Self

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin_demo.announcer import LINKS, Announce
from tocsin_demo.answers import RefusalError, answer, resource
from tocsin_demo.check_log import INTERRUPTED, Check, CheckLog
from tocsin_demo.inspection import STEPS_AT_A_DESK, inspect, verdict
from tocsin_demo.links import link_changed
from tocsin_demo.store import Link, MissingError, Store

AT_ONCE = 4  # checks that run in this process at the same time
WAITING_LIMIT = 20  # checks begun in this process and not ended; beyond, 503

logger = logging.getLogger(__name__)


class CheckNews(msgspec.Struct, frozen=True, tag="check", tag_field="event"):
    """What the channel hears of a check at each step: how far it is, and its latest words."""

    id: str
    link_id: int
    state: str
    done: int
    total: int
    says: str


class Checks:
    """Owns the checks that run in this process: leaving its context gives up those that have not ended."""

    def __init__(self, store: Store, log: CheckLog, announce: Announce) -> None:
        self._store = store
        self._log = log
        self._announce = announce
        self._slots = asyncio.Semaphore(AT_ONCE)
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
        """To begin a check, and to ask how far it is."""
        return [
            resource("/links/{link_id:int}/check", POST=self._begin),
            resource("/checks/{check_id}", GET=self._show),
        ]

    async def _begin(self, request: Request) -> Response:
        """At once, before anything has been looked at. A link that is being checked is not checked twice."""
        if len(self._tasks) >= WAITING_LIMIT:
            raise RefusalError(503, "busy", "too many checks are waiting", {"Retry-After": "5"})
        try:
            link = await run_in_threadpool(self._store.get, request.path_params["link_id"])
        except MissingError:
            raise RefusalError(404, "not_found", "there is no such link") from None
        check, is_new = await run_in_threadpool(
            self._log.begin, secrets.token_hex(8), link.id, STEPS_AT_A_DESK
        )
        if is_new:
            task = self._group.create_task(self._run(check, link))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return answer(check, 202, {"Location": f"/checks/{check.id}"})

    async def _show(self, request: Request) -> Response:
        check = await run_in_threadpool(self._log.get, request.path_params["check_id"])
        if check is None:
            raise RefusalError(404, "not_found", "there is no such check")
        return answer(check)

    async def _run(self, check: Check, link: Link) -> None:
        """To its end or to ours: a check that this process does not finish is told as failed."""
        try:
            async with self._slots:
                await self._work(check, link)
        except asyncio.CancelledError:
            self._log.save(msgspec.structs.replace(check, state="failed", verdict=INTERRUPTED))
            raise
        except Exception:  # one check must not take the others with it
            logger.exception("check %s of link %s broke", check.id, link.id)
            await self._tell(msgspec.structs.replace(check, state="failed", verdict="the check itself broke"))

    async def _work(self, check: Check, link: Link) -> None:
        others = (await run_in_threadpool(self._store.changes)).links
        async for finding, total in inspect(link, others):
            check = msgspec.structs.replace(check, findings=[*check.findings, finding], total=total)
            await self._tell(check)
        result = verdict(check.findings)
        await self._tell(msgspec.structs.replace(check, state="done", verdict=result))
        try:
            changed = await run_in_threadpool(self._store.change, link.id, verdict=result)
        except MissingError:
            return  # deleted while it was being checked
        await self._announce(LINKS, link_changed(changed, ["verdict"]))

    async def _tell(self, check: Check) -> None:
        await run_in_threadpool(self._log.save, check)
        says = check.verdict or check.findings[-1].says
        news = CheckNews(check.id, check.link_id, check.state, len(check.findings), check.total, says)
        await self._announce(LINKS, news)
