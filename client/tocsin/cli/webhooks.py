"""``tocsin webhooks``: which webhooks fail, and their dead letters: show, send again, remove."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tocsin.errors import TocsinError
from tocsin.publisher import Publisher

from . import fail
from .options import DEFAULT_URL, ApiKey, Url
from .output import printable, to_line

PAGE = 100
"""How many dead letters one call shows or removes."""

REPLAY_SECONDS = 60.0
"""How long the server may take to answer a replay: it waits for the webhook's receiver."""

NOT_THERE = ("unreachable", "gone")
"""Outcomes that another dead letter would have, too."""


class Action(StrEnum):
    """The actions on webhooks and dead letters."""

    status = "status"
    dead_letters = "dead-letters"
    replay = "replay"
    discard = "discard"


def webhooks(
    action: Annotated[
        Action,
        typer.Argument(help="status: show every webhook. dead-letters, replay, discard: of one webhook."),
    ] = Action.status,
    webhook: Annotated[str, typer.Argument(help="The NAME of its section [webhooks.NAME].")] = "",
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of dead letters. Default: all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Discard all dead letters.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per item.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Show webhooks and their dead letters, send dead letters again, or discard them."""
    chosen = ids or []
    if (action is Action.status) != (not webhook):
        fail("give the name of a webhook after dead-letters, replay or discard, and after no other action")
    if action is Action.discard and bool(chosen) == every:
        fail("give the ids of the dead letters to discard, or --all")
    try:
        with Publisher(url, api_key, timeout_seconds=REPLAY_SECONDS) as publisher:
            if action is Action.status:
                _show_status(publisher.webhooks(), as_json)
            elif action is Action.dead_letters:
                _show_letters(_letters(publisher, webhook, chosen), as_json)
            elif action is Action.replay:
                _replay(publisher, webhook, chosen)
            else:
                _discard(publisher, webhook, chosen)
    except (KeyError, AttributeError, TypeError):
        fail("the server did not answer with webhooks: is the address that of a Tocsin server?")
    except (TocsinError, ValueError) as error:
        fail(str(error))


def _letters(publisher: Publisher, webhook: str, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The dead letters of a webhook, oldest first, or those with these ids."""
    after = ""
    while page := publisher.dead_letters(webhook, limit=PAGE, after=after):
        yield from (letter for letter in page if not ids or letter["id"] in ids)
        after = page[-1]["id"]


def _show_status(found: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.writelines(to_line(webhook) + "\n" for webhook in found)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "address", "state", "oldest event", "dead letters"):
        table.add_column(heading, overflow="fold")
    now = time.time()
    for webhook in found:
        parts, error = webhook["failing_parts"], printable(webhook["error"])
        since = _age(now, webhook["failing_since"])
        state = f"fails for {since}, parts: {parts}, {error}" if parts else "ok"
        oldest = _age(now, webhook["oldest_event_at"]) if parts else ""
        table.add_row(
            webhook["name"], printable(webhook["url"]), state, oldest, f"{webhook['dead_letters']:,}"
        )
    Console().print(table)


def _show_letters(letters: Iterator[dict[str, Any]], as_json: bool) -> None:
    for letter in letters:
        if as_json:
            sys.stdout.write(to_line(letter) + "\n")
            continue
        failed_at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter["failed_at"]))
        attempts = f"{letter['attempts']} attempts, {letter['reason']}"
        sys.stdout.write(f"{letter['id']}  {failed_at}  {printable(attempts)}  {to_line(letter['event'])}\n")


def _replay(publisher: Publisher, webhook: str, ids: Sequence[str]) -> None:
    """Send dead letters again, one by one where several at once are refused. Fails if some are left."""
    replayed, error = 0, ""
    waiting = [letter["id"] for letter in _letters(publisher, webhook, ids)]
    batches = [waiting[start : start + PAGE] for start in range(0, len(waiting), PAGE)]
    while batches:
        batch = batches.pop(0)
        result = publisher.replay_dead_letters(webhook, ids=batch)
        replayed += result["replayed"]
        if not result["error"]:
            rest = batch[result["replayed"] :] if result["replayed"] else []
            batches[:0] = [rest] if rest else []
            continue
        if len(batch) > 1 and result["outcome"] not in NOT_THERE:
            batches[:0] = [[one] for one in batch]
            continue
        error = result["error"]
        if result["outcome"] in NOT_THERE:
            break
    sys.stdout.write(f"sent again: {replayed}\n")
    if error:
        fail(f"the webhook did not take all of them: {error}; they are still dead letters")


def _discard(publisher: Publisher, webhook: str, ids: Sequence[str]) -> None:
    discarded = 0
    found = [letter["id"] for letter in _letters(publisher, webhook, ids)]
    for start in range(0, len(found), PAGE):
        discarded += publisher.discard_dead_letters(webhook, ids=found[start : start + PAGE])
    sys.stdout.write(f"discarded: {discarded}\n")


def _age(now: float, moment: float) -> str:
    return str(timedelta(seconds=max(0, round(now - moment))))
