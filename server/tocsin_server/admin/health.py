"""Whether the process lives, whether the node can do its work, and what it counts."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tocsin_server.metrics.multiprocess import Colleagues
from tocsin_server.node.node import Node


def health_routes(node: Node, colleagues: Colleagues | None) -> list[Route]:
    """`/health/live`, `/health/ready` and `/metrics`, which shows `colleagues` too."""

    async def live(_request: Request) -> Response:
        """200 as long as the loop turns; says nothing about the engine."""
        return JSONResponse({"node": node.name})

    async def ready(_request: Request) -> Response:
        """200 if this node can publish and hear, else 503 and why not."""
        trouble = node.unready_reason
        return JSONResponse({"node": node.name, "trouble": trouble}, status_code=503 if trouble else 200)

    async def metrics(_request: Request) -> Response:
        own = node.metrics.page()
        page = own if colleagues is None else await colleagues.page(own)
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    return [Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", metrics)]
