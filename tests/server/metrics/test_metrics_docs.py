"""docs/metrics.md, the Grafana dashboard and the alerts name the metrics that a node has, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.server.metrics.metrics_page import kinds_of
from tests.server.node.fake_connection import connected
from tests.server.served_node import settings_of
from tocsin_server.app import create_app

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "metrics.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "tocsin.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())


@pytest.fixture
async def kinds() -> dict[str, str]:
    """The metrics of a live node, by name."""
    node = create_app(settings_of({})).state.node
    async with node.running():
        await connected(node, "log:1")
        return kinds_of(node.metrics.page())


async def test_the_docs_have_every_metric_with_its_type(kinds: dict[str, str]) -> None:
    """No metric is missing, and none is unknown."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCS, re.MULTILINE)
    assert dict(rows) == kinds
    assert len(rows) == len(kinds)


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def names_in(expression: str) -> set[str]:
    """The metrics in an expression, by their names in the docs."""
    found = re.findall(r"\b(?:tocsin|process)_\w+", re.sub(r'"[^"]*"', "", expression))
    return {re.sub(r"(_seconds)_(?:bucket|sum|count)$", r"\1", name) for name in found}


def missing(expression: str, kinds: dict[str, str]) -> set[str]:
    """Names that no node has, and histograms that are queried without `_bucket`, `_sum` or `_count`."""
    return {name for name in names_in(expression) if name not in kinds} | {
        name
        for name in names_in(expression)
        if kinds.get(name) == "histogram" and not re.search(rf"{name}_(bucket|sum|count)\b", expression)
    }


async def test_the_dashboard_queries_existing_metrics(kinds: dict[str, str]) -> None:
    assert len(expressions()) > 20
    for expression in expressions():
        assert names_in(expression), expression
        assert not missing(expression, kinds), expression


async def test_the_dashboard_shows_every_metric(kinds: dict[str, str]) -> None:
    """The one exception is the size of mapped memory."""
    shown = set().union(*map(names_in, expressions()))
    assert set(kinds) - shown == {"process_virtual_memory_bytes"}


def test_the_dashboard_has_variables_for_data_source_and_instance() -> None:
    """Every panel shows the chosen instances only."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["instance"]["includeAll"]
    assert DASHBOARD["schemaVersion"] >= 39
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["description"], panel["title"]
    for expression in expressions():
        assert 'instance=~"$instance"' in expression, expression


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


async def test_alerts_query_existing_metrics(kinds: dict[str, str]) -> None:
    assert len(rules()) >= 8
    for rule in rules():
        assert names_in(rule["expr"]), rule["alert"]
        assert not missing(rule["expr"], kinds), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
