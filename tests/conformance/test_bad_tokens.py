"""Invalid tokens close with 3500; tokens that are expired or not valid yet are error 109 (protocol §12)."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.tokens import SECRET, connection_token, seconds_from_now, subscription_token
from tests.support.wire_client import Close, connect_wire, open_wire

pytestmark = pytest.mark.usefixtures("other_clients_are_unharmed")

Name = Callable[[str], str]
GOOD = connection_token("ann")


def segment(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: Any, claims: Any) -> str:
    return f"{segment(header)}.{segment(claims)}."


def signed(claims: Any, **header: Any) -> str:
    """A token with any claims, signed with the right key."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jwt.PyJWS().encode(payload, SECRET, algorithm="HS256", headers=header or None)


INVALID_TOKENS = {
    "garbage": "garbage",
    "dots": "..",
    "one segment less": GOOD.rsplit(".", 1)[0],
    "one segment more": GOOD + ".x",
    "a blank": " ",
    "padding": GOOD + "==",
    "not ASCII": GOOD + "ß",
    "half a surrogate": "\ud800",
    "very long": GOOD + "x" * 60_000,
    "no signature": unsigned({"alg": "HS256", "typ": "JWT"}, {"sub": "ann"}),
    "algorithm none": unsigned({"alg": "none", "typ": "JWT"}, {"sub": "ann"}),
    "algorithm None": unsigned({"alg": "None"}, {"sub": "ann"}),
    "no algorithm": unsigned({"typ": "JWT"}, {"sub": "ann"}),
    "an unknown algorithm": unsigned({"alg": "HS1"}, {"sub": "ann"}) + "xx",
    "a header that is a list": unsigned([], {"sub": "ann"}),
    "a header that is no JSON": segment(b"{") + GOOD[GOOD.index(".") :],
    "another key": connection_token("ann", secret="another" * 8),
    "a changed claim": ".".join([GOOD.split(".")[0], segment({"sub": "bob"}), GOOD.split(".")[2]]),
    "claims that are a list": signed([]),
    "claims that are no JSON": signed(b"{"),
    "claims that are not UTF-8": signed(b'{"sub": "\xff"}'),
    "claims without end": signed(b"[" * 30_000),
    "a subject that is a number": signed({"sub": 5}),
    "a subject that is a list": signed({"sub": ["ann"]}),
    "an expiry that is text": signed({"sub": "ann", "exp": "tomorrow"}),
    "an expiry that is a list": signed({"sub": "ann", "exp": []}),
    "a beginning that is text": signed({"sub": "ann", "nbf": "tomorrow"}),
    "an expire_at that is text": signed({"sub": "ann", "expire_at": "never"}),
    "channels that are text": signed({"sub": "ann", "channels": "open:1"}),
    "channels that are numbers": signed({"sub": "ann", "channels": [1]}),
    "subs that are a list": signed({"sub": "ann", "subs": ["open:1"]}),
    "subs of text": signed({"sub": "ann", "subs": {"open:1": "yes"}}),
    "a token for a subscription": subscription_token("ann", "open:1"),
    "an extension that must be understood": signed({"sub": "ann"}, crit=["novelty"], novelty=1),
}

OF_BOTH_KINDS = [kind for kind in INVALID_TOKENS if not kind.startswith(("channels", "subs", "a token for"))]
"""Tokens that are also invalid for a subscription."""

OUT_OF_TIME: dict[str, dict[str, Any]] = {
    "expired": {"exp": seconds_from_now(-10)},
    "expired long ago": {"exp": 1},
    "not valid yet": {"nbf": seconds_from_now(3600)},
}


@pytest.mark.parametrize("token", INVALID_TOKENS.values(), ids=INVALID_TOKENS)
async def test_an_invalid_token_closes_the_connection(server: Server, token: str) -> None:
    """The code is 3500, without a reply."""
    async with open_wire(server) as wire:
        await wire.send({"id": 1, "connect": {"token": token}})
        assert await wire.closed() == Close(3500, "invalid token")
        assert wire.received == []


@pytest.mark.parametrize("claims", OUT_OF_TIME.values(), ids=OUT_OF_TIME)
async def test_an_expired_token_is_an_error(server: Server, claims: dict[str, Any]) -> None:
    """Error 109 makes the client request another token."""
    async with open_wire(server) as wire:
        with pytest.raises(Refused) as refused:
            await wire.connect(token=connection_token("ann", **claims))
    message = "token expired: it is not valid yet" if "nbf" in claims else "token expired"
    assert (refused.value.code, refused.value.message) == (109, message)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_every_hmac_algorithm_is_accepted(server: Server, algorithm: str) -> None:
    async with open_wire(server) as wire:
        assert await wire.connect(token=connection_token("ann", algorithm=algorithm))


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": seconds_from_now(3600), "jti": "x", "iss": "an issuer", "aud": "an audience", "novelty": {}},
        {"exp": 2**53},
        {"exp": 1000 * seconds_from_now(3600)},
        {"sub": ""},
        {"info": None, "meta": {"a": 1}, "channels": []},
    ],
)
async def test_claims_that_are_not_checked_are_ignored(server: Server, claims: dict[str, Any]) -> None:
    """Claims that are unusual, or that the configuration does not check."""
    async with open_wire(server) as wire:
        assert await wire.connect(token=signed({"sub": "ann", **claims}))


@pytest.mark.parametrize("kind", [*OF_BOTH_KINDS, "a token for a connection"])
async def test_an_invalid_subscription_token_is_an_error(server: Server, kind: str, channel: Name) -> None:
    """The error is 103. The connection stays open."""
    token = INVALID_TOKENS.get(kind, GOOD)
    async with connect_wire(server, token=GOOD) as wire:
        with pytest.raises(Refused) as refused:
            await wire.call("subscribe", channel=channel("open"), token=token)
        assert refused.value.code == 103
        await wire.call("publish", channel="open:1", data={})


@pytest.mark.parametrize("claims", OUT_OF_TIME.values(), ids=OUT_OF_TIME)
async def test_an_expired_subscription_token_is_an_error(
    server: Server, channel: Name, claims: dict[str, Any]
) -> None:
    """The error is 109. The connection stays open."""
    news = channel("open")
    async with connect_wire(server, token=GOOD) as wire:
        with pytest.raises(Refused) as refused:
            await wire.call("subscribe", channel=news, token=subscription_token("ann", news, **claims))
        assert refused.value.code == 109
        await wire.call("publish", channel="open:1", data={})


@pytest.mark.parametrize(
    "token",
    [
        subscription_token("bob", "open:tokens"),
        subscription_token("", "open:tokens"),
        subscription_token("ann", "open:other"),
        subscription_token("ann", "open:tokens", client="another connection"),
    ],
    ids=["another user's", "the anonymous user's", "another channel's", "another connection's"],
)
async def test_a_subscription_token_for_another_target_closes_the_connection(
    server: Server, token: str
) -> None:
    """A token for another user, channel or connection closes with 3500."""
    async with connect_wire(server, token=GOOD) as wire:
        await wire.send({"id": 9, "subscribe": {"channel": "open:tokens", "token": token}})
        assert await wire.closed() == Close(3500, "invalid token")
