"""The OpenAPI document of the API."""

from typing import Any

import httpx
import pytest
import pytest_asyncio
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.server.api.conftest import Served
from tests.support.api import NO_TLS
from tocsin_server.api.methods import METHODS
from tocsin_server.api.openapi import api_document

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def document(api: Served) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False, verify=NO_TLS) as other:
        response = await other.get("/api/openapi.json")
    described: dict[str, Any] = response.json()
    return described


async def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    """It conforms to the specification's schema, and needs no key."""
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


async def test_the_document_describes_every_method(document: dict[str, Any]) -> None:
    """Each method has a summary. The document has the places of a key, and the signature."""
    assert set(document["paths"]) == {"/api", *(f"/api/{name}" for name in METHODS)}
    for path in document["paths"].values():
        assert path["post"]["summary"].strip()
    places = [(scheme["in"], scheme["name"]) for scheme in document["components"]["securitySchemes"].values()]
    assert places == [("header", "X-API-Key"), ("header", "Authorization"), ("header", "Authorization")]
    allowed = api_document("", 255, True)["components"]["securitySchemes"]
    assert allowed["query"] == {"type": "apiKey", "in": "query", "name": "api_key"}


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


def _is_valid(document: dict[str, Any], name: str, value: Any) -> bool:
    """Whether a value is valid by a schema of the document."""
    schema = document["components"]["schemas"][name]
    return bool(OAS31Validator({**schema, "components": document["components"]}).is_valid(value))


@pytest.mark.parametrize(
    ("params", "is_valid"),
    [
        ({"data": None}, True),
        ({"b64data": "e30="}, True),
        ({"data": 1, "b64data": None}, True),
        ({}, False),
        ({"b64data": ""}, False),
        ({"b64data": None}, False),
        ({"data": 1, "version": 55.0}, True),
        ({"data": 1, "version": 5.5}, False),
        ({"data": 1, "tags": {"a": None}}, True),
        ({"data": 1, "tags": {"a": 1}}, False),
        ({"data": 1, "tags": None, "idempotency_key": None}, True),
    ],
)
@pytest.mark.parametrize("method", ["publish", "broadcast"])
async def test_the_schema_of_a_publication_agrees_with_the_server(
    api: Served, document: dict[str, Any], method: str, params: dict[str, Any], is_valid: bool
) -> None:
    """A payload is required, in one of two members. Optional members may be null."""
    body = {"channel": "plain", "channels": ["plain"], **params}
    name = document["paths"][f"/api/{method}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert _is_valid(document, name["$ref"].rpartition("/")[2], body) is is_valid
    assert ("result" in await api.call(method, **body)) is is_valid


@pytest.mark.parametrize(
    ("channel", "is_valid"),
    [
        ("news", True),
        ("open:a b/c", True),
        ("", False),
        ("größe", False),
        ("room#Jürgen", False),
        ("#Jürgen", True),
        ("open:#urn:Jürgen", True),
        ("$#Jürgen", True),
        ("x" * 255, True),
        ("x" * 256, False),
    ],
)
async def test_the_schema_of_a_channel_s_name_agrees_with_the_server(
    api: Served, document: dict[str, Any], channel: str, is_valid: bool
) -> None:
    """Names are ASCII, except the id of a personal channel's user."""
    assert _is_valid(document, "PublishRequest", {"channel": channel, "data": 1}) is is_valid
    assert ("result" in await api.call("publish", channel=channel, data=1)) is is_valid


async def test_the_document_has_the_configured_length_of_channel_names() -> None:
    """Only the configuration knows it."""
    schemas = api_document("", 20)["components"]["schemas"]
    assert schemas["PublishRequest"]["properties"]["channel"]["maxLength"] == 20


async def test_what_is_refused_by_itself_does_not_make_the_request_around_it_invalid() -> None:
    """A broadcast with a name that is too long, and a batch with it, are accepted: one reply says it."""
    schemas = api_document()["components"]["schemas"]
    for place in (
        schemas["BroadcastRequest"]["properties"]["channels"]["items"],
        schemas["PublishRequestInBatch"]["properties"]["channel"],
    ):
        assert place.keys() == {"description", "type", "minLength"}
    assert "anyOf" in schemas["PublishRequest"]
    assert "anyOf" not in schemas["PublishRequestInBatch"]


async def test_the_document_declares_the_headers_that_count(document: dict[str, Any]) -> None:
    """Every value of the error mode is accepted. The coding describes the body, and is no parameter."""
    parameters = document["components"]["parameters"]
    assert list(parameters) == ["ErrorMode"]
    assert "enum" not in parameters["ErrorMode"]["schema"]
    for path in document["paths"].values():
        assert "gzip" in path["post"]["requestBody"]["description"]
        assert "415" in path["post"]["responses"]
