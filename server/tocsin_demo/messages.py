"""Messages: a visitor's message is a request to the application, which publishes it.

This works while the page's connections are cut, because sending does not use them.
"""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin import TocsinError
from tocsin_demo.publishing import LOBBY, Publisher
from tocsin_demo.responses import HttpError, json_response, read_body, resource
from tocsin_demo.visitors import Visitors


class MessageInput(msgspec.Struct, forbid_unknown_fields=True):
    """The request. `sent` is the page's clock in milliseconds, from which pages compute the delay."""

    text: Annotated[str, Meta(min_length=1, max_length=280, pattern=r"\S")]
    sent: Annotated[float, Meta(ge=0, le=1e14)]


class Message(msgspec.Struct, frozen=True):
    """The publication."""

    text: str
    name: str
    user: str
    sent: float


class Messages:
    """The handler. Its response is the position of the message in the channel's history."""

    def __init__(self, visitors: Visitors, publisher: Publisher) -> None:
        self._visitors = visitors
        self._publisher = publisher

    @property
    def routes(self) -> list[Route]:
        """The route that the page sends messages to."""
        return [resource("/messages", POST=self._create)]

    async def _create(self, request: Request) -> Response:
        visitor = self._visitors.require(request)
        body = await read_body(request, MessageInput)
        message = Message(body.text.strip(), visitor.name, visitor.user, body.sent)
        try:
            position = await self._publisher.publish(LOBBY, msgspec.to_builtins(message))
        except TocsinError as error:
            raise HttpError(502, "not_published", f"the push server did not accept it: {error}") from None
        return json_response(position, 201)
