"""``tocsin revoke``: make tokens invalid before they expire."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer

from tocsin.errors import TocsinError
from tocsin.publisher import Publisher

from . import fail
from .options import DEFAULT_URL, ApiKey, Url, read_duration


class Subject(StrEnum):
    """Which tokens are revoked."""

    token = "token"  # noqa: S105 - a word of the command line
    user = "user"


def revoke(
    subject: Annotated[Subject, typer.Argument(help="token: one token. user: the tokens of a user.")],
    name: Annotated[str, typer.Argument(help="The token's id (its claim jti), or the user's id.")],
    issued_before: Annotated[
        int, typer.Option(metavar="UNIX_TIME", help="Only tokens issued before. Default: before now.")
    ] = 0,
    channel: Annotated[str, typer.Option(help="Only subscription tokens for this channel.")] = "",
    block: Annotated[
        bool, typer.Option("--block", help="Also refuse tokens that are issued later, until it ends.")
    ] = False,
    ttl: Annotated[
        str,
        typer.Option(
            help="How long it lasts: 300, 5m, 12h, 30d. At least as long as the tokens are valid. "
            "Default: client.token_revocation_ttl of the server."
        ),
    ] = "",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Revoke tokens on all nodes. Their connections and subscriptions end, and clients get new tokens."""
    expire_at = int(time.time()) + read_duration(ttl, "--ttl") if ttl else 0
    if subject is Subject.token and (issued_before or channel or block):
        fail("--issued-before, --channel and --block belong to a user")
    if block and issued_before:
        fail("give --issued-before or --block, and not both")
    if block and not ttl:
        fail("--block needs --ttl")
    try:
        with Publisher(url, api_key) as publisher:
            if subject is Subject.token:
                publisher.revoke_token(name, expire_at=expire_at)
            else:
                before = expire_at if block else issued_before
                publisher.invalidate_user_tokens(
                    name, issued_before=before, expire_at=expire_at, channel=channel
                )
    except (TocsinError, ValueError) as error:
        fail(str(error))
