"""The recovery decision: whether a returning client can get everything that it missed (protocol §10)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tocsin_server.core.events import HistoryRead
from tocsin_server.core.positions import History, fitting
from tocsin_server.protocol.messages import Position, Publication


class Recovery(Struct, frozen=True):
    """Whether a client can get everything that it missed, and the publications it missed."""

    is_recovered: bool
    publications: Sequence[Publication] = ()


NOT_RECOVERED = Recovery(False)


def recover(since: Position, history: History) -> Recovery:
    """Decide a recovery in stream mode (protocol §10).

    `history` holds the publications after `since.offset`, oldest first. The client recovers only if
    nothing is missing between its offset and the top. An empty epoch matches any.
    """
    top, missed = history.top, history.publications
    if since.epoch and since.epoch != top.epoch:
        return NOT_RECOVERED
    if not missed:
        return Recovery(since.offset == top.offset)
    first, last = missed[0].offset, missed[-1].offset
    is_whole = first == since.offset + 1 and last == top.offset and len(missed) == last - since.offset
    return Recovery(True, missed) if is_whole else NOT_RECOVERED


def continues(since: Position, history: History, limit: int) -> bool:
    """Whether `history` is the first page of a recovery, which later pages complete.

    Its publications follow `since` without a gap, and end before the top. The whole recovery has at most
    `limit` publications.
    """
    top, page = history.top, history.publications
    if not page or (since.epoch and since.epoch != top.epoch):
        return False
    first, last = page[0].offset, page[-1].offset
    is_in_order = first == since.offset + 1 and len(page) == last - since.offset
    return is_in_order and last < top.offset <= since.offset + limit


class FirstPage(Struct, frozen=True):
    """What the subscribe reply is made from, and whether later pages follow it."""

    history: History
    is_continued: bool = False


def first_page(
    read: HistoryRead, page: History, merged: History | None, room_bytes: float
) -> FirstPage | None:
    """Cut a recovery to what fits into `room_bytes`. None if history must be read again.

    `page` is what was read. `merged` is the same, continued with what was received meanwhile, or None if it
    does not reach what was received.
    """
    since = read.since
    if since is not None and not read.is_latest and continues(since, page, read.limit):
        return FirstPage(History(page.top, fitting(page.publications, room_bytes, least=0)), True)
    if since is None or merged is None:
        return None if merged is None else FirstPage(merged)
    publications = (recover_latest if read.is_latest else recover)(since, merged).publications
    kept = fitting(publications, room_bytes, least=0)
    is_cut = len(kept) < len(publications)
    return FirstPage(History(merged.top, kept) if is_cut else merged, is_cut)


def recover_latest(since: Position, history: History) -> Recovery:
    """Decide a recovery in cache mode, where only the newest publication matters.

    `history` holds that publication, if it is kept. With an empty epoch the client gets it even if it has it.
    """
    top, kept = history.top, history.publications
    is_current = since.offset == top.offset and since.epoch == top.epoch
    if kept and kept[-1].offset == top.offset:
        return Recovery(True, () if is_current and since.offset > 0 else kept[-1:])
    return Recovery(is_current or (since.offset == top.offset and not since.epoch))
