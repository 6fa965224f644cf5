"""Which SDKs are tested, and in which transports and formats: all that each SDK offers."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
DRIVERS = Path(__file__).with_name("drivers")


OPTIONAL = frozenset({"expired subscription token", "bytes", "delta", "tags filter"})
"""The features that not every SDK offers."""


@dataclass(frozen=True)
class Sdk:
    """One SDK, its driver, and which of `OPTIONAL` it offers."""

    name: str
    language: str
    command: tuple[str, ...]
    version: Callable[[], str]
    """Reads the version from the file that locks it."""
    offers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Combination:
    """An SDK in one transport and one format."""

    sdk: Sdk
    transport: str
    format: str

    def __str__(self) -> str:
        return f"{self.sdk.name}-{self.transport}-{self.format}"

    def offers(self, feature: str) -> bool:
        """Whether the SDK offers the feature in this format. Payloads of any bytes need protobuf."""
        if feature == "bytes":
            return self.format == "protobuf"
        return feature not in OPTIONAL or feature in self.sdk.offers


def _python_version() -> str:
    return _found(r"(?m)^centrifuge-python==(\S+)$", TOP / "constraints.txt")


def _npm_version() -> str:
    lock = json.loads((DRIVERS / "js" / "package-lock.json").read_text())
    version: str = lock["packages"]["node_modules/centrifuge"]["version"]
    return version


def _go_version() -> str:
    return _found(r"centrifuge-go v(\S+) h1:", DRIVERS / "go" / "go.sum")


def _java_version() -> str:
    return _found(
        r"<artifactId>centrifuge-java</artifactId>\s*<version>([^<]+)</version>",
        DRIVERS / "java" / "pom.xml",
    )


def _found(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text())
    assert match is not None, f"no {pattern} in {file}"
    return match[1]


_JAVA_CLASSES = f"{DRIVERS / 'java' / 'target' / 'classes'}:{DRIVERS / 'java' / 'target' / 'lib'}/*"

PYTHON = Sdk(
    "centrifuge-python",
    "Python",
    (sys.executable, str(DRIVERS / "python" / "driver.py")),
    _python_version,
    OPTIONAL,
)
JAVASCRIPT = Sdk(
    "centrifuge-js",
    "JavaScript",
    ("node", str(DRIVERS / "js" / "driver.mjs")),
    _npm_version,
    OPTIONAL,
)
GO = Sdk(
    "centrifuge-go",
    "Go",
    (str(DRIVERS / "go" / "build" / "driver"),),
    _go_version,
    OPTIONAL,
)
JAVA = Sdk(
    "centrifuge-java",
    "Java",
    ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", _JAVA_CLASSES, "Driver"),
    _java_version,
)

COMBINATIONS = (
    Combination(PYTHON, "websocket", "json"),
    Combination(PYTHON, "websocket", "protobuf"),
    Combination(JAVASCRIPT, "websocket", "json"),
    Combination(JAVASCRIPT, "websocket", "protobuf"),
    Combination(JAVASCRIPT, "http_stream", "json"),
    Combination(JAVASCRIPT, "http_stream", "protobuf"),
    Combination(JAVASCRIPT, "sse", "json"),
    Combination(GO, "websocket", "json"),
    Combination(GO, "websocket", "protobuf"),
    Combination(JAVA, "websocket", "protobuf"),
)


def every_combination(feature: str | None = None) -> pytest.MarkDecorator:
    """Run a test with every combination that offers the feature."""
    offering = [each for each in COMBINATIONS if feature is None or each.offers(feature)]
    return pytest.mark.parametrize("combination", offering, ids=str)
