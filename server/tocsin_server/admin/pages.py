"""The static page: from the wheel, or from the checkout where the package is installed in place."""

from __future__ import annotations

from pathlib import Path

from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

import tocsin_server

_PACKAGE = Path(tocsin_server.__file__).parent


def static_directory() -> Path:
    """Where the page's files are."""
    installed = _PACKAGE / "static"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "static"


def page_routes() -> list[Mount]:
    """Everything in `static/`, with `index.html` at `/`. Must come after all other routes."""
    return [Mount("/", StaticFiles(directory=static_directory(), html=True))]
