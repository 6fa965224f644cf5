"""The effects that send a reply or a push."""

from __future__ import annotations

from msgspec import Struct

from tocsin_server.core.events import Effect, EngineRequest, Send
from tocsin_server.errors import CLIENT_ERRORS, Refusal
from tocsin_server.protocol.messages import (
    Empty,
    ErrorBody,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    PublishRequest,
    Push,
    PushEnvelope,
    Reply,
    RpcResult,
)


def send_push(push: Push) -> Send:
    """Send a push."""
    return Send(PushEnvelope(push))


def refuse(command_id: int, refusal: Refusal) -> Send:
    """Answer a command with an error."""
    return Send(Reply(command_id, error=ErrorBody(refusal.code, refusal.message, refusal.temporary)))


def is_error(effect: Effect) -> bool:
    """Whether an effect refuses a command for what it asks. Limits and failures of the server are no such."""
    if not isinstance(effect, Send):
        return False
    message = effect.message
    return isinstance(message, Reply) and message.error is not None and message.error.code in CLIENT_ERRORS


def answer(command_id: int, request: EngineRequest, result: Struct) -> Send:
    """Answer a command that was executed outside the session with its result."""
    match result:
        case Empty() if isinstance(request, PublishRequest):
            return Send(Reply(command_id, publish=result))
        case PresenceResult():
            return Send(Reply(command_id, presence=result))
        case PresenceStatsResult():
            return Send(Reply(command_id, presence_stats=result))
        case HistoryResult():
            return Send(Reply(command_id, history=result))
        case RpcResult():
            return Send(Reply(command_id, rpc=result))
        case _:
            raise TypeError(f"{type(result).__name__} does not answer {type(request).__name__}")
