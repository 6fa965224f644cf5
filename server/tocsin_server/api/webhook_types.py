"""Requests and results of the API methods for webhooks. Docstrings are descriptions in the document."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

IDS_LIMIT = 1000

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="The NAME of its section `[webhooks.NAME]`, or the name in `webhooks`.",
    ),
]
LetterIds = Annotated[
    list[Annotated[str, Meta(max_length=64)]],
    Meta(max_length=IDS_LIMIT, description="Ids of dead letters. None: the oldest ones."),
]
Moment = Annotated[float, Meta(description="A Unix time in seconds; 0 if no delivery fails.")]


class WebhooksRequest(Struct):
    """Asks for the status of every webhook."""


class WebhookStatus(Struct):
    """How the deliveries to one webhook, or to one handler of the application, go on all nodes."""

    name: str
    url: Annotated[str, Meta(description="Its address without the query; empty for a handler.")]
    failing_parts: Annotated[
        int, Meta(description="How many parts of the event log have a delivery that fails.")
    ]
    failing_since: Moment
    oldest_event_at: Moment
    next_attempt_at: Moment
    error: Annotated[str, Meta(description="Why the oldest of them fails.")]
    dead_letters: int


class WebhooksResult(Struct):
    """Every webhook and handler of the node."""

    webhooks: list[WebhookStatus]


class DeadLettersRequest(Struct):
    """Asks for a page of dead letters, oldest first."""

    webhook: Name
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Annotated[
        str, Meta(max_length=64, description="The id of the last dead letter of the page before.")
    ] = ""


class DeadLetter(Struct):
    """An event that could not be delivered, and why."""

    id: str
    event: Annotated[Raw, Meta(description="The lifecycle event.")]
    delivery: Annotated[str, Meta(description="The id of its last delivery.")]
    reason: str
    attempts: Annotated[int, Meta(description="How often that delivery was attempted.")]
    status: Annotated[int, Meta(description="The status of the last answer; 0 without one.")]
    failed_at: Annotated[
        float, Meta(description="The Unix time in seconds at which it became a dead letter.")
    ]


class DeadLettersResult(Struct):
    """A page of dead letters."""

    dead_letters: list[DeadLetter]


class ReplayDeadLettersRequest(Struct):
    """Delivers dead letters again, at most one batch."""

    webhook: Name
    ids: LetterIds = []


class ReplayDeadLettersResult(Struct):
    """What became of them."""

    replayed: Annotated[int, Meta(description="How many were taken, and are removed.")]
    outcome: Annotated[
        str, Meta(description="`delivered`, or else `unreachable`, `failed`, `refused` or `gone`.")
    ]
    error: Annotated[str, Meta(description="Why they were not taken.")]


class DiscardDeadLettersRequest(Struct):
    """Removes dead letters: at most 1000."""

    webhook: Name
    ids: LetterIds = []


class DiscardDeadLettersResult(Struct):
    """How many were removed."""

    discarded: int
