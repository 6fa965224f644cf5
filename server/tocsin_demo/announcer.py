"""How the application tells the world: it publishes to the push server over HTTP, as any back end would."""

from collections.abc import Awaitable, Callable

LINKS = "links"  # every change of the links, and every step of their checks
LOBBY = "chat:lobby"  # what visitors say

# Publishes on a channel. Never raises: what has been stored stays true if nobody can be told of it.
Announce = Callable[[str, object], Awaitable[None]]
