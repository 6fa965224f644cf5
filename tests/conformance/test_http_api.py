"""What `cent` does not cover of the HTTP API: keys, statuses, error modes, unusual bodies (protocol §14)."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.support.api import NO_TLS, Api
from tests.support.configs import API_KEY, SECOND_API_KEY
from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tests.support.wire_client import connect_wire

Name = Callable[[str], str]

INFO = "/api/info"


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=SOON, trust_env=False, verify=NO_TLS) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"X-API-Key": API_KEY}, {}),
        ({"X-API-Key": SECOND_API_KEY}, {}),
        ({"Authorization": f"apikey {API_KEY}"}, {}),
        ({}, {"api_key": API_KEY}),
    ],
    ids=["header", "second key", "authorization", "query"],
)
def test_a_key_can_be_given_in_three_ways(
    http: httpx.Client, headers: dict[str, str], query: dict[str, str]
) -> None:
    """In X-API-Key, in Authorization, or in the query. Each configured key is accepted."""
    assert http.post(INFO, json={}, headers=headers, params=query).status_code == 200


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, {}),
        ({"X-API-Key": ""}, {}),
        ({"X-API-Key": API_KEY + "x"}, {}),
        ({"X-API-Key": API_KEY[:-1]}, {}),
        ({"Authorization": f"Bearer {API_KEY}"}, {}),
        ({"Authorization": "apikey"}, {}),
        ({}, {"api_key": "wrong"}),
    ],
)
def test_a_request_without_a_valid_key_gets_an_empty_401(
    http: httpx.Client, headers: dict[str, str], query: dict[str, str]
) -> None:
    response = http.post(INFO, json={}, headers=headers, params=query)
    assert (response.status_code, response.content) == (401, b"")


def test_a_server_without_keys_refuses_every_request(insecure_server: Server) -> None:
    """An empty key is not accepted either."""
    response = httpx.post(
        insecure_server.url + INFO, json={}, headers={"X-API-Key": ""}, trust_env=False, verify=NO_TLS
    )
    assert response.status_code == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_post_is_allowed(http: httpx.Client, method: str) -> None:
    """Any other method is 405."""
    assert http.request(method, INFO, headers={"X-API-Key": API_KEY}).status_code == 405


@pytest.mark.parametrize("name", ["nothing", "connections", "user/ban", "map_publish"])
def test_unknown_methods_are_not_found(http: httpx.Client, name: str) -> None:
    """The status is 404, also with a valid key."""
    assert http.post(f"/api/{name}", json={}, headers={"X-API-Key": API_KEY}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"channel":"\xff"}',
    ],
)
async def test_an_invalid_body_is_a_bad_request(api: Api, body: bytes) -> None:
    """A body that is not a JSON object is 400, with a description."""
    response = await api.post("publish", body)
    assert response.status_code == 400
    assert response.text


@pytest.mark.parametrize(
    "params",
    [
        {"channel": 1, "data": 1},
        {"channel": ["open:1"], "data": 1},
        {"channel": "open:1", "data": 1, "tags": {"a": 1}},
        {"channel": "open:1", "data": 1, "idempotency_key": 5},
        {"channel": "open:1", "data": 1, "version": -1},
        {"channel": "open:1", "data": 1, "version": 2**70},
        {"channel": None, "data": 1},
    ],
)
async def test_fields_of_another_type_are_a_bad_request(api: Api, params: dict[str, object]) -> None:
    """As error 107, or as status 400 in transport mode."""
    response = await api.post("publish", params)
    assert response.status_code == 400 or response.json()["error"]["code"] == 107


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"data":' + b'{"a":' * 50_000])
async def test_a_deeply_nested_body_is_a_bad_request(api: Api, body: bytes) -> None:
    assert (await api.post("publish", body)).status_code == 400


async def test_a_body_too_large_is_refused(api: Api, channel: Name) -> None:
    """More than one megabyte is 413, and the next request is served."""
    body = json.dumps({"channel": channel("open"), "data": "x" * 2_000_000}).encode()
    assert (await api.post("publish", body)).status_code == 413
    assert await api.call("info")


async def test_unknown_fields_are_ignored(api: Api, channel: Name) -> None:
    """A newer back end may send fields that this server does not know."""
    assert (await api.publish(channel("open"), 1, novelty={"a": 1}))["offset"] == 1


@pytest.mark.parametrize("name", ["nothing:known", "open:größe", "x" * 256])
async def test_invalid_channels_are_refused(api: Api, name: str) -> None:
    """An unknown namespace, a name that is not ASCII, a name that is too long."""
    with pytest.raises(Refused) as refused:
        await api.publish(name)
    assert refused.value.code == (102 if name.startswith("nothing") else 107)


@pytest.mark.parametrize(
    ("method", "params", "status", "code"),
    [
        ("publish", {"channel": "nowhere:1", "data": 1}, 404, 102),
        ("publish", {"channel": "", "data": 1}, 400, 107),
        ("history", {"channel": "plain:1"}, 400, 108),
        ("history", {"channel": "open:1", "limit": 1, "since": {"offset": 1, "epoch": "x"}}, 416, 112),
        ("rpc", {"method": "nothing"}, 404, 104),
    ],
)
async def test_errors_can_be_http_statuses(
    api: Api, method: str, params: dict[str, object], status: int, code: int
) -> None:
    """In transport mode an error is the response's status, and the body is the bare error."""
    response = await api.post(method, params, **{"X-Centrifugo-Error-Mode": "transport"})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["message"]
    assert (await api.post(method, params)).json()["error"]["code"] == code


async def test_transport_mode_can_be_the_default(token_only_server: Server) -> None:
    """With `error_mode` set, requests need no header for it."""
    async with Api(token_only_server) as api:
        response = await api.post("publish", {"channel": "nowhere:1", "data": 1})
    assert (response.status_code, response.json()["code"]) == (404, 102)


async def test_base64_data_is_decoded(api: Api, channel: Name) -> None:
    """`b64data` carries any bytes. Those that are JSON are published as JSON."""
    news = channel("open")
    await api.call("publish", channel=news, b64data="eyJhIjogMX0=")
    page = await api.call("history", channel=news, limit=1)
    assert page["publications"][0]["data"] == {"a": 1}


@pytest.mark.parametrize("params", [{}, {"b64data": "***"}])
async def test_a_publication_needs_data(api: Api, channel: Name, params: dict[str, str]) -> None:
    """No data, or no base64, is error 107."""
    with pytest.raises(Refused) as refused:
        await api.call("publish", channel=channel("open"), **params)
    assert refused.value.code == 107


async def test_an_old_version_is_not_published(server: Server, api: Api, channel: Name) -> None:
    """Within a version epoch only higher versions are published. Otherwise the result is the current top."""
    news = channel("open")
    async with connect_wire(server) as subscriber:
        await subscriber.call("subscribe", channel=news)
        asked = [(1, "a"), (3, "a"), (2, "a"), (3, "a"), (4, "a"), (1, "b")]
        results = [
            await api.publish(news, f"{epoch}{version}", version=version, version_epoch=epoch)
            for version, epoch in asked
        ]
        received = [(await subscriber.push("pub", news))["data"] for _ in range(4)]
        assert await subscriber.is_quiet()
    assert received == ["a1", "a3", "a4", "b1"]
    assert [result["offset"] for result in results] == [1, 2, 2, 2, 3, 4]


async def test_a_repeated_broadcast_publishes_nothing(api: Api, channel: Name) -> None:
    """Its idempotency key holds in each channel."""
    names = [channel("open"), channel("open")]
    answers = [await api.call("broadcast", channels=names, data=1, idempotency_key="key") for _ in range(2)]
    assert answers[0] == answers[1]
    assert [(await api.call("history", channel=name))["offset"] for name in names] == [1, 1]


async def test_batch_replies_to_each_command_in_order(api: Api, channel: Name) -> None:
    """Unknown commands are 104, null ones 107, refused ones have their own code. The others are executed."""
    news = channel("open")
    commands: list[object] = [
        {"publish": {"channel": news, "data": 1}},
        {"nothing": {}},
        {},
        {"publish": {"channel": "nowhere:1", "data": 1}},
        {"history": {"channel": news}},
    ]
    response = await api.post("batch", {"commands": commands})
    replies = response.json()["replies"]
    assert replies[0]["publish"]["offset"] == 1
    assert [reply["error"]["code"] for reply in replies[1:3]] == [104, 104]
    assert replies[3]["error"]["code"] == 102
    assert replies[4]["history"]["offset"] == 1


async def test_a_null_command_in_a_batch_is_a_bad_request(api: Api) -> None:
    """Error 107 is at its place."""
    response = await api.post("batch", {"commands": [None]})
    assert response.json()["replies"][0]["error"]["code"] == 107


def test_the_legacy_endpoint_works(http: httpx.Client, channel: Name) -> None:
    """`POST /api` takes commands separated by newlines, and answers each on a line."""
    news = channel("open")
    commands = [
        {"id": 1, "method": "publish", "params": {"channel": news, "data": 1}},
        {"method": "publish", "params": {"channel": "nowhere:1", "data": 1}},
        {"id": 3, "method": "nothing", "params": {}},
        {"id": 4, "method": "history", "params": {"channel": news}},
    ]
    for joint in ("\n", ""):
        body = joint.join(map(json.dumps, commands))
        response = http.post("/api", content=body, headers={"X-API-Key": API_KEY})
        first, second, third, fourth = map(json.loads, response.text.strip().split("\n"))
        assert (first["id"], first["result"]["offset"]) == (1, fourth["result"]["offset"])
        assert (second.get("id"), second["error"]["code"]) == (None, 102)
        assert (third["id"], third["error"]["code"]) == (3, 104)


async def test_refresh_pushes_the_new_time_to_live(server: Server, api: Api, channel: Name) -> None:
    user = channel("user")
    async with connect_wire(server, token=connection_token(user)) as wire:
        assert await api.call("refresh", user=user, expire_at=4_000_000_000) == {}
        assert (await wire.push("refresh"))["expires"] is True


async def test_empty_results_have_their_fields(api: Api, channel: Name) -> None:
    """Clients index these fields also when they are empty."""
    news = channel("open")
    assert await api.call("presence", channel=news) == {"presence": {}}
    assert await api.call("presence_stats", channel=news) == {"num_clients": 0, "num_users": 0}
    page = await api.call("history", channel=news)
    assert (page["publications"], page["offset"]) == ([], 0)
    assert len(page["epoch"]) > 0
    assert (await api.call("channels", pattern="none*"))["channels"] == {}


def test_openapi_names_every_method(http: httpx.Client) -> None:
    document = http.get("/api/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    methods = (
        "publish broadcast batch presence presence_stats history history_remove channels info disconnect"
    )
    for method in [*methods.split(), "unsubscribe", "subscribe", "refresh"]:
        assert "post" in document["paths"][f"/api/{method}"]


def test_health_and_metrics_are_served(http: httpx.Client) -> None:
    assert http.get("/health/live").status_code == 200
    assert http.get("/health/ready").status_code == 200
    assert "tocsin" in http.get("/metrics").text
