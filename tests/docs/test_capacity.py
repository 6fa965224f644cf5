"""docs/capacity.md: its tables are what its constants give, and its constants can be measured again."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.bench.__main__ import PARTS
from tests.docs.capacity_model import (
    BUSY,
    CONNECTIONS,
    PAGE,
    WORKLOADS,
    Workload,
    constants_of,
    need,
    node_cpu,
    with_tables,
    workers_for,
)
from tocsin_server.serving.connection_counts import FEW, TOLERANCE

TEXT = PAGE.read_text()


def test_the_tables_are_computed_from_the_constants() -> None:
    """If this fails after a constant was measured again: `python -m tests.docs.capacity_model`."""
    assert with_tables(TEXT) == TEXT


def test_each_constant_names_the_part_of_the_benchmark_that_measures_it() -> None:
    rows = re.findall(r"(?m)^\| `([a-z_]+)` \|.*\| ([a-z `]+) \|$", TEXT)
    assert [key for key, _ in rows] == list(constants_of(TEXT))
    assert {part.strip("`") for _, part in rows} <= {*PARTS, "kernel"}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
def test_workers_are_as_busy_as_planned(workload: Workload) -> None:
    constants = constants_of(TEXT)
    for connections in CONNECTIONS:
        workers = workers_for(constants, workload, connections)
        assert node_cpu(constants, workload, connections, workers) <= BUSY * workers
        assert workload.nodes(connections, workers) <= min(workers, workload.receivers(connections)) + 1e-6


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
def test_more_connections_need_more_of_everything(workload: Workload) -> None:
    needs = [need(constants_of(TEXT), workload, connections) for connections in CONNECTIONS]
    for fewer, more in itertools.pairwise(needs):
        assert fewer.workers <= more.workers
        assert fewer.memory < more.memory
        assert fewer.network < more.network


def test_the_page_states_the_bound_of_the_code() -> None:
    assert f"{TOLERANCE:.2%} and {FEW} connections" in TEXT
