"""The OpenAPI document of the API."""

from typing import Any

import httpx
import pytest
import pytest_asyncio
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.server.api.conftest import Served
from tocsin_server.api.methods import METHODS
from tocsin_server.api.openapi import api_document

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def document(api: Served) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as other:
        response = await other.get("/api/openapi.json")
    described: dict[str, Any] = response.json()
    return described


async def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    """It conforms to the specification's schema, and needs no key."""
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


async def test_the_document_describes_every_method(document: dict[str, Any]) -> None:
    """Each method has a summary. The document has the three places of a key."""
    assert set(document["paths"]) == {"/api", *(f"/api/{name}" for name in METHODS)}
    for path in document["paths"].values():
        assert path["post"]["summary"].strip()
    places = [(scheme["in"], scheme["name"]) for scheme in document["components"]["securitySchemes"].values()]
    assert places == [("header", "X-API-Key"), ("header", "Authorization"), ("query", "api_key")]


async def test_every_schema_has_a_description(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"].strip(), name


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("publish", {"channel": "open:described", "data": 1, "tags": {"a": "b"}}),
        ("broadcast", {"channels": ["open:described", "nowhere:1"], "data": None}),
        ("history", {"channel": "open:described", "limit": 10, "since": {"offset": 0}}),
        ("presence", {"channel": "open:described"}),
        ("presence_stats", {"channel": "plain"}),
        ("channels", {}),
        ("info", {}),
        ("rpc", {"method": "double", "params": "a"}),
        ("subscribe", {"user": "ann", "channel": "plain", "override": {"presence": {"value": True}}}),
        ("disconnect", {"user": "ann", "disconnect": {"code": 4000, "reason": "x"}}),
        ("batch", {"commands": [{"info": {}}, {}, None]}),
    ],
)
async def test_requests_and_responses_match_their_schemas(
    api: Served, document: dict[str, Any], method: str, params: dict[str, Any]
) -> None:
    """An accepted request and its response are valid by the schemas of the document."""
    operation = document["paths"][f"/api/{method}"]["post"]
    answer = await api.call(method, **params)
    for place, value in (("requestBody", params), ("responses", answer)):
        described = operation[place] if place == "requestBody" else operation[place]["200"]
        schema = described["content"]["application/json"]["schema"]
        OAS31Validator({**schema, "components": document["components"]}).validate(value)


async def test_the_document_has_the_path_of_the_mount() -> None:
    """Tools need it to call the right address."""
    assert api_document("/push")["servers"] == [{"url": "/push"}]
    assert api_document("")["servers"] == [{"url": "/"}]
