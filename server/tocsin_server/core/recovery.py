"""The recovery decision: whether a returning client can get everything that it missed (protocol §10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tocsin_server.core.positions import History
from tocsin_server.protocol.messages import Position, Publication


class Recovery(NamedTuple):
    """Whether a client can get everything that it missed, and the publications it missed."""

    is_recovered: bool
    publications: Sequence[Publication] = ()


NOT_RECOVERED = Recovery(False)


def recover(since: Position, history: History) -> Recovery:
    """Decide a recovery in stream mode (protocol §10).

    `history` holds the publications after `since.offset`, oldest first. The client recovers only if
    nothing is missing between its offset and the top. An empty epoch matches any.
    """
    top, missed = history
    if since.epoch and since.epoch != top.epoch:
        return NOT_RECOVERED
    if not missed:
        return Recovery(since.offset == top.offset)
    first, last = missed[0].offset, missed[-1].offset
    is_whole = first == since.offset + 1 and last == top.offset and len(missed) == last - since.offset
    return Recovery(True, missed) if is_whole else NOT_RECOVERED


def recover_latest(since: Position, history: History) -> Recovery:
    """Decide a recovery in cache mode, where only the newest publication matters.

    `history` holds that publication, if it is kept. With an empty epoch the client gets it even if it has it.
    """
    top, kept = history
    is_current = since.offset == top.offset and since.epoch == top.epoch
    if kept and kept[-1].offset == top.offset:
        return Recovery(True, () if is_current and since.offset > 0 else kept[-1:])
    return Recovery(is_current or (since.offset == top.offset and not since.epoch))
