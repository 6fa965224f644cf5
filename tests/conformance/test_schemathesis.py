"""The HTTP API against its own OpenAPI document, with requests that schemathesis makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_schema_validator import OAS31Validator
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.server import Server, run_server
from tocsin_server.api.methods import METHODS
from tocsin_server.api.openapi import api_document

EXAMPLES = 8
CONFIG = {
    "server": {"drain_seconds": 0},
    "api": {"insecure": True},
    "channels": {"presence": True, "history_size": 10, "history_ttl": "300s"},
}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NOT_IN_THE_SCHEMA = ("b64", "is longer than", "reverse", "`reason`", "has passed")
"""Parts of the messages about what a JSON Schema cannot express: the content of base64, bytes, and times."""
TRANSPORT = {"X-Centrifugo-Error-Mode": "transport"}


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, because requests for any user and any channel reach it."""
    folder: Path = tmp_path_factory.mktemp("schemathesis")
    with run_server(CONFIG, folder) as server:
        yield server


def cases(server: Server, path: str, mode: GenerationMode, check: Callable[[Case[Any]], None]) -> None:
    """Call `check` with requests to one path."""
    document = httpx.get(f"{server.url}/api/openapi.json", trust_env=False).json()
    schema: BaseSchema = schemathesis.openapi.from_dict(document)
    operation = schema[path]["POST"]
    strategy = operation.as_strategy(generation_mode=mode)
    run = settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
        derandomize=True,
    )(given(case=strategy)(check))
    run()


@pytest.mark.parametrize("name", [*METHODS, ""])
def test_requests_and_responses_match_the_document(api_server: Server, name: str) -> None:
    """A request that the document permits is accepted, or refused for a reason that no schema expresses."""
    path = f"/api/{name}".removesuffix("/")

    def check(case: Case[Any]) -> None:
        case.headers.update(TRANSPORT)
        case.headers.pop("Content-Encoding", None)
        response = case.call(base_url=api_server.url)
        case.validate_response(response, checks=CHECKS)
        if response.status_code == 400:
            assert any(reason in response.text for reason in NOT_IN_THE_SCHEMA), response.text

    cases(api_server, path, GenerationMode.POSITIVE, check)


@pytest.mark.parametrize("name", METHODS)
def test_a_request_that_the_document_forbids_is_refused(api_server: Server, name: str) -> None:
    """Where schemathesis breaks a header alone, the body is still valid, and so is the request."""
    document = api_document()
    body = document["paths"][f"/api/{name}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = OAS31Validator({**body, "components": document["components"]})

    def check(case: Case[Any]) -> None:
        case.headers.clear()
        case.headers.update(TRANSPORT)
        response = case.call(base_url=api_server.url)
        case.validate_response(response, checks=CHECKS)
        if not validator.is_valid(case.body):
            assert 400 <= response.status_code < 500, (case.body, response.text)

    cases(api_server, f"/api/{name}", GenerationMode.NEGATIVE, check)
