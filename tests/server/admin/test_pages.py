"""The demo page: served only on request, complete, and below all other routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.server.served_node import serve_node
from tocsin_server.admin import pages


async def test_no_page_is_served_by_default() -> None:
    async with serve_node() as served_node, served_node.http() as http:
        for path in ("/", "/index.html", "/tocsin.js"):
            assert (await http.get(path)).status_code == 404


async def test_every_file_that_the_page_names_is_served() -> None:
    """The page works offline."""
    async with serve_node(has_page=True) as served_node, served_node.http() as http:
        page = await http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"] == "frame-ancestors 'self'"
        assert page.headers["x-content-type-options"] == "nosniff"
        named = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
        assert any(name.endswith(".js") for name in named)
        for name in named:
            assert (await http.get(name)).status_code == 200, name
        module = await http.get("/tocsin.js")
        assert module.headers["content-type"].startswith("text/javascript")


async def test_the_page_hides_no_other_route() -> None:
    """It is the last route, and serves no file outside its directory."""
    async with serve_node(has_page=True) as served_node, served_node.http() as http:
        assert (await http.get("/health/live")).json()
        assert (await http.get("/connection/websocket")).status_code == 400
        assert (await http.get("/api/openapi.json")).json()["openapi"].startswith("3.1")
        for path in ("/../pyproject.toml", "/%2e%2e/pyproject.toml", "/nowhere"):
            assert (await http.get(path)).status_code == 404
        assert (await http.post("/", content=b"")).status_code == 405


async def test_the_routes_of_the_demo_do_not_exist_here() -> None:
    """Even on an insecure node no page can kill or deafen it."""
    async with (
        serve_node(has_page=True, client={"insecure": True}) as served_node,
        served_node.http() as http,
    ):
        for action in ("kill", "drain", "deafen", "heal"):
            refused = await http.post(f"/demo/nodes/{served_node.node.name}/{action}")
            assert refused.status_code in (404, 405), action
        assert served_node.node.unready_reason == ""


def test_the_files_come_from_the_package_or_from_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel contains the files. An editable install finds them in the checkout."""
    assert (pages.static_directory() / "index.html").is_file()
    package = tmp_path / "server" / "tocsin_server"
    package.mkdir(parents=True)
    monkeypatch.setattr(pages, "_PACKAGE", package)
    assert pages.static_directory() == tmp_path / "static"
    (package / "static").mkdir()
    assert pages.static_directory() == package / "static"
