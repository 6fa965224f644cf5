"""Health and metrics of a node over HTTP."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tocsin_server.metrics.cached_page import CachedPage
from tocsin_server.metrics.multiprocess import WorkerMetrics
from tocsin_server.node.node import Node


def health_routes(node: Node, worker_metrics: WorkerMetrics | None) -> list[Route]:
    """`/health/live`, `/health/ready`, and `/metrics`, which with `worker_metrics` shows all workers."""

    async def live(_request: Request) -> Response:
        """200 as long as the event loop runs. The engine does not matter here."""
        return JSONResponse({"node": node.name})

    async def ready(request: Request) -> Response:
        """200 if this node can publish and receive, else 503 with the unready reason.

        Warnings do not change that: those of the node, and about certificates.
        """
        reason, warnings = node.unready_reason, list(node.warnings)
        server = request.scope.get("state", {}).get("server")
        for certificate in server.certificates if server is not None else ():
            warnings += certificate.warnings()
        body = {"node": node.name, "reason": reason, "warnings": warnings}
        return JSONResponse(body, status_code=503 if reason else 200)

    async def make_page() -> bytes:
        own = node.metrics.page()
        return own if worker_metrics is None else await worker_metrics.page(own)

    page = CachedPage(make_page)

    async def metrics(_request: Request) -> Response:
        return Response(await page.get(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", metrics)]
