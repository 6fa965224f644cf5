"""The HTTP API against its own OpenAPI document, with requests that schemathesis makes of it.

`make fuzz` makes more of them: 300 for each method, or `EXAMPLES=2000`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.api import NO_TLS
from tests.support.server import Server, run_server
from tocsin_server.api.methods import METHODS

EXAMPLES = int(os.environ.get("TOCSIN_FUZZ_EXAMPLES", "8"))
KEY = "the key of the test"
CONFIG = {
    "server": {"drain_seconds": 0},
    "api": {"keys": [KEY], "error_mode": "transport"},
    "channels": {"presence": True, "history_size": 10, "history_ttl": "300s"},
}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NOT_IN_THE_SCHEMA = ("b64", "reverse", "`reason`", "unrecoverable position", "has passed")
"""Parts of the messages about what a JSON Schema cannot express: JSON in base64, bytes, positions, times."""


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, because requests for any user and any channel reach it."""
    folder: Path = tmp_path_factory.mktemp("schemathesis")
    with run_server(CONFIG, folder) as server:
        yield server


def cases(server: Server, path: str, mode: GenerationMode, check: Callable[[Case[Any]], None]) -> None:
    """Call `check` with requests to one path."""
    document = httpx.get(f"{server.url}/api/openapi.json", trust_env=False, verify=NO_TLS).json()
    schema: BaseSchema = schemathesis.openapi.from_dict(document)
    operation = schema[path]["POST"]
    strategy = operation.as_strategy(generation_mode=mode)
    run = settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
        derandomize="TOCSIN_FUZZ_EXAMPLES" not in os.environ,
    )(given(case=strategy)(check))
    run()


def _call(server: Server, case: Case[Any]) -> Any:
    case.headers["X-API-Key"] = KEY
    case.headers.pop("Authorization", None)
    return case.call(base_url=server.url)


@pytest.mark.parametrize("name", [*METHODS, ""])
def test_a_request_that_the_document_permits_is_accepted(api_server: Server, name: str) -> None:
    """Or refused for a reason that no schema expresses. Its response is one that the document has."""

    def check(case: Case[Any]) -> None:
        response = _call(api_server, case)
        is_expressible = not any(reason in response.text for reason in NOT_IN_THE_SCHEMA)
        if response.status_code < 400 or is_expressible:
            case.validate_response(response, checks=[*CHECKS, positive_data_acceptance])
        else:
            case.validate_response(response, checks=CHECKS)

    cases(api_server, f"/api/{name}".removesuffix("/"), GenerationMode.POSITIVE, check)


@pytest.mark.parametrize("name", [*METHODS, ""])
def test_a_request_that_the_document_forbids_is_refused(api_server: Server, name: str) -> None:
    """The legacy endpoint refuses in a 200, also in transport error mode."""
    checks = [*CHECKS, negative_data_rejection] if name else CHECKS

    def check(case: Case[Any]) -> None:
        case.validate_response(_call(api_server, case), checks=checks)

    cases(api_server, f"/api/{name}".removesuffix("/"), GenerationMode.NEGATIVE, check)
