"""The demo page's static files, from the wheel or, in an editable install, from the checkout."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_PACKAGE = Path(__file__).parents[1]


def static_directory() -> Path:
    """The directory that holds the page's files."""
    installed = _PACKAGE / "static"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "static"


class _PageFiles(StaticFiles):
    """Files that no page of another origin may frame, and whose type a browser does not guess."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = "frame-ancestors 'self'"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def page_routes() -> list[Mount]:
    """Every file in `static/`, with `index.html` at `/`. This route must come after all other routes."""
    return [Mount("/", _PageFiles(directory=static_directory(), html=True))]
