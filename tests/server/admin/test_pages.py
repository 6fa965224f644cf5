"""Pages: served only where wanted, whole, and never instead of anything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.server.served_node import serve_node
from tocsin_server.admin import pages


async def test_there_is_no_page_unless_wanted() -> None:
    async with serve_node() as served_node, served_node.http() as http:
        for path in ("/", "/index.html", "/tocsin.js"):
            assert (await http.get(path)).status_code == 404


async def test_the_page_comes_with_everything_that_it_names() -> None:
    """Every script and style of the page, from here: it works offline."""
    async with serve_node(has_page=True) as served_node, served_node.http() as http:
        page = await http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        named = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
        assert any(name.endswith(".js") for name in named)
        for name in named:
            assert (await http.get(name)).status_code == 200, name
        module = await http.get("/tocsin.js")
        assert module.headers["content-type"].startswith("text/javascript")


async def test_the_page_hides_nothing_else() -> None:
    """It is the last of the routes, and leads out of its directory nowhere."""
    async with serve_node(has_page=True) as served_node, served_node.http() as http:
        assert (await http.get("/health/live")).json()
        assert (await http.get("/connection/websocket")).status_code == 400
        assert (await http.get("/api/openapi.json")).json()["openapi"].startswith("3.1")
        for path in ("/../pyproject.toml", "/%2e%2e/pyproject.toml", "/nowhere"):
            assert (await http.get(path)).status_code == 404
        assert (await http.post("/", content=b"")).status_code == 405


async def test_what_the_demo_does_to_its_nodes_is_the_demos_alone() -> None:
    """Where everybody may do everything, nobody kills or deafens a node through its page."""
    async with (
        serve_node(has_page=True, client={"insecure": True}) as served_node,
        served_node.http() as http,
    ):
        for deed in ("kill", "drain", "deafen", "heal"):
            refused = await http.post(f"/demo/nodes/{served_node.node.name}/{deed}")
            assert refused.status_code in (404, 405), deed
        assert served_node.node.unready_reason == ""


def test_the_files_are_the_packages_or_the_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel brings its own; an editable install finds them beside the packages."""
    assert (pages.static_directory() / "index.html").is_file()
    package = tmp_path / "server" / "tocsin_server"
    package.mkdir(parents=True)
    monkeypatch.setattr(pages, "_PACKAGE", package)
    assert pages.static_directory() == tmp_path / "static"
    (package / "static").mkdir()
    assert pages.static_directory() == package / "static"
