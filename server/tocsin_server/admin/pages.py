"""The demo page's static files, from the wheel or, in an editable install, from the checkout."""

from __future__ import annotations

from pathlib import Path

from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

_PACKAGE = Path(__file__).parents[1]


def static_directory() -> Path:
    """The directory that holds the page's files."""
    installed = _PACKAGE / "static"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "static"


def page_routes() -> list[Mount]:
    """Every file in `static/`, with `index.html` at `/`. This route must come after all other routes."""
    return [Mount("/", StaticFiles(directory=static_directory(), html=True))]
