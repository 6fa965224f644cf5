"""docs/sdks.md is what a run in which everything passed writes, with the versions of the lock files."""

import inspect
import json
import re

from tests.sdks import scenarios
from tests.sdks.combinations import DRIVERS, TOP
from tests.sdks.page import FEATURES, complete, item_of, rendered


def test_the_page_has_the_versions_of_the_lock_files_and_every_test_passed() -> None:
    """If it differs, run `make test-sdks`."""
    assert (TOP / "docs" / "sdks.md").read_text() == rendered(dict.fromkeys(complete(), True))


def test_a_test_that_failed_is_on_the_page() -> None:
    outcomes = dict.fromkeys(complete(), True)
    failed = item_of(f"tests/sdks/scenarios.py::{FEATURES['recovery']}[centrifuge-go-websocket-json]")
    assert failed in outcomes
    lines = rendered({**outcomes, failed: False}).splitlines()
    assert [line for line in lines if "| no |" in line] == [
        line for line in lines if "`centrifuge-go`" in line and "| json |" in line
    ]


def test_every_scenario_has_its_column() -> None:
    tests = [
        name for name, _ in inspect.getmembers(scenarios, inspect.isfunction) if name.startswith("test_")
    ]
    assert sorted(tests) == sorted(FEATURES.values())


def test_no_lock_file_names_a_registry() -> None:
    lock = (DRIVERS / "js" / "package-lock.json").read_text()
    assert all("integrity" in package for name, package in json.loads(lock)["packages"].items() if name)
    for file in ("js/package-lock.json", "java/pom.xml", "go/go.mod", "go/go.sum"):
        assert not re.search(r"https?://", (DRIVERS / file).read_text()), file
