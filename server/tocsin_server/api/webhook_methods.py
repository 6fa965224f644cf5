"""The API methods for webhooks and their dead letters. Docstrings are descriptions in the document."""

from __future__ import annotations

from tocsin_server.api import webhook_types as types
from tocsin_server.api.calls import Context, Method


async def webhooks(context: Context, _request: types.WebhooksRequest) -> types.WebhooksResult:
    """Return every webhook, whether its deliveries fail, and how many dead letters it has."""
    found = await context.dead_letters.status()
    return types.WebhooksResult([types.WebhookStatus(**status._asdict()) for status in found])


async def dead_letters(context: Context, request: types.DeadLettersRequest) -> types.DeadLettersResult:
    """Return a page of the dead letters of a webhook, oldest first. Error 104 if there is no such webhook."""
    found = await context.dead_letters.read(request.webhook, request.limit, request.after)
    return types.DeadLettersResult(
        [
            types.DeadLetter(
                one.id,
                one.letter.event,
                one.letter.delivery,
                one.letter.reason,
                one.letter.attempts,
                one.letter.status,
                one.letter.failed_at,
            )
            for one in found
        ]
    )


async def replay_dead_letters(
    context: Context, request: types.ReplayDeadLettersRequest
) -> types.ReplayDeadLettersResult:
    """Deliver dead letters again in one request, and remove them if the webhook takes them.

    At most `batch_size` of its section, and the oldest ones without `ids`. Returns once it has answered.
    Error 104 if there is no such webhook.
    """
    replay = await context.dead_letters.replay(request.webhook, request.ids)
    return types.ReplayDeadLettersResult(replay.replayed, replay.outcome.result.value, replay.outcome.error)


async def discard_dead_letters(
    context: Context, request: types.DiscardDeadLettersRequest
) -> types.DiscardDeadLettersResult:
    """Remove dead letters. Without `ids` the oldest 1000. Error 104 if there is no such webhook."""
    discarded = await context.dead_letters.discard(request.webhook, request.ids)
    return types.DiscardDeadLettersResult(discarded)


WEBHOOK_METHODS = {
    "webhooks": Method(webhooks, types.WebhooksRequest, types.WebhooksResult),
    "dead_letters": Method(dead_letters, types.DeadLettersRequest, types.DeadLettersResult),
    "replay_dead_letters": Method(
        replay_dead_letters, types.ReplayDeadLettersRequest, types.ReplayDeadLettersResult
    ),
    "discard_dead_letters": Method(
        discard_dead_letters, types.DiscardDeadLettersRequest, types.DiscardDeadLettersResult
    ),
}
"""These methods are for operators: neither a batch nor the legacy endpoint may call them."""
