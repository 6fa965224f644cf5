"""``tocsin nodes`` against a real node."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_line import Ended, tocsin
from tests.support.configs import API_KEY
from tests.support.server import Server, run_server
from tests.support.timing import STARTED


def nodes(server: Server, *arguments: str) -> Ended:
    return tocsin("nodes", *arguments, "--url", server.url)


def test_each_node_is_a_row_or_a_json_line(tmp_path: Path) -> None:
    with run_server({"server": {"name": "harbour"}}, tmp_path, "--insecure") as server:
        table = nodes(server)
        (node,) = [json.loads(line) for line in nodes(server, "--json").lines]
    assert table.code == 0
    assert all(word in "\n".join(table.lines) for word in ("harbour", f":{server.port}", "ready", "MiB"))
    assert node["name"] == "harbour"
    assert node["memory_bytes"] > 0


def test_drain_stops_a_node(tmp_path: Path) -> None:
    """The node is named by its name, its id, or the part of the id in the table. It ends as with SIGTERM."""
    with run_server({"server": {"name": "harbour"}}, tmp_path, "--insecure") as server:
        assert nodes(server, "drain", "harbour").code == 0
        assert server.process.wait(STARTED) == 0


def test_a_failure_is_explained_in_one_sentence(server: Server) -> None:
    unknown = nodes(server, "drain", "unknown", "--api-key", API_KEY)
    refused = nodes(server)
    half = nodes(server, "drain")
    assert (unknown.code, refused.code, half.code) == (1, 1, 1)
    assert "there is no node 'unknown'" in unknown.errors
    assert half.errors == "tocsin: give drain and the node's id or name, or neither\n"
    assert refused.errors == "tocsin: the API key is missing or wrong\n"
