"""What visitors say to each other: a request to the application, which publishes it.

It works however many connections are cut, because saying something never needed one.
"""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin import TocsinError
from tocsin_demo.announcer import LOBBY
from tocsin_demo.answers import RefusalError, answer, read, resource
from tocsin_demo.publishers import Publishers
from tocsin_demo.visitors import Visitors


class MessageInput(msgspec.Struct, forbid_unknown_fields=True):
    """`sent`: the visitor's clock in milliseconds, so that its page can tell how long the way round took."""

    text: Annotated[str, Meta(min_length=1, max_length=280, pattern=r"\S")]
    sent: Annotated[float, Meta(ge=0, le=1e14)]


class MessageNews(msgspec.Struct, frozen=True):
    """What the channel hears."""

    text: str
    name: str
    user: str
    sent: float


class Messages:
    """Saying something.

    The answer is the message's position in the channel's log, as the push server gave it.
    """

    def __init__(self, visitors: Visitors, publishers: Publishers) -> None:
        self._visitors = visitors
        self._publishers = publishers

    @property
    def routes(self) -> list[Route]:
        """Where the page sends what was typed."""
        return [resource("/messages", POST=self._say)]

    async def _say(self, request: Request) -> Response:
        visitor = self._visitors.of(request)
        wanted = await read(request, MessageInput)
        news = MessageNews(wanted.text.strip(), visitor.name, visitor.user, wanted.sent)
        try:
            position = await self._publishers.publish(LOBBY, msgspec.to_builtins(news))
        except TocsinError as error:
            raise RefusalError(502, "not_published", f"the push server did not take it: {error}") from None
        return answer(position, 201)
