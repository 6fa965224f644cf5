"""What the answers of hooks mean, and which answers are not valid."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from msgspec import Raw

from tocsin_server import errors
from tocsin_server.core.capabilities import Capability
from tocsin_server.core.events import Approval, Renewal
from tocsin_server.core.tokens import ConnectionClaims, ExpiringGrant, Flag, Override, SubscriptionClaims
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.hooks.answers import (
    EXPIRED,
    Connected,
    Published,
    Refreshed,
    RpcAnswer,
    Subscribed,
    Undecided,
)
from tocsin_server.hooks.outcomes import InvalidAnswer, checked_refusal, outcome_of
from tocsin_server.protocol.messages import (
    ConnectRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    RpcResult,
    SubRefreshRequest,
    SubscribeRequest,
)
from tocsin_server.protocol.payloads import Binary


def untyped(kind: Any, *values: Any, **more: Any) -> Any:
    """Return an answer with values that a type checker would refuse."""
    return kind(*values, **more)


class Text(str):
    """A string of a type that no codec encodes, such as those that mark text as safe for HTML."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the same object, as such types do."""
        return self


HALF = "half a pair \ud800"

PUBLISH = PublishRequest("news", Raw(b"1"))


def test_no_opinion_leaves_the_request_as_it_is() -> None:
    assert outcome_of(PUBLISH, "ada", None) == Approval(PUBLISH)


def test_a_connection_gets_all_that_the_answer_has() -> None:
    answer = Connected(
        "ada",
        info={"name": "Ada"},
        data=[1],
        expire_at=2e9,
        subscriptions={"news": Subscribed(info=1, data=b"\x00", expire_at=3e9, allow=["pub"])},
        capabilities=[Capability(("chat:*",), ("sub",))],
    )
    outcome = outcome_of(ConnectRequest(), "", answer)
    grant = ExpiringGrant(info=Raw(b"1"), payload=Binary(b"\x00"), expire_at=3e9, allow=("pub",))
    claims = ConnectionClaims(
        sub="ada",
        info=Raw(b'{"name":"Ada"}'),
        expire_at=2e9,
        subs={"news": grant},
        caps=(Capability(("chat:*",), ("sub",)),),
    )
    assert outcome == Approval(ConnectRequest(), claims, data=Raw(b"[1]"))


def test_a_subscription_gets_all_that_the_answer_has() -> None:
    request = SubscribeRequest("news")
    answer = Subscribed(1, Raw(b"2 "), 3e9, Override(presence=Flag(True)), ["hst"])
    claims = SubscriptionClaims(
        sub="ada",
        channel="news",
        info=Raw(b"1"),
        expire_at=3e9,
        override=Override(presence=Flag(True)),
        allow=("hst",),
    )
    assert outcome_of(request, "ada", answer) == Approval(request, claims, data=Raw(b"2"))


@pytest.mark.parametrize(
    ("data", "published"),
    [
        (None, Raw(b"1")),
        ({"a": [1]}, Raw(b'{"a":[1]}')),
        ("text", Raw(b'"text"')),
        (0, Raw(b"0")),
        (b'{"a": 1}', Raw(b'{"a": 1}')),
        (b"\xff", Binary(b"\xff")),
        (Raw(b"[\n1]"), Raw(b"[1]")),
    ],
)
def test_a_publication_may_be_changed(data: Any, published: Raw | Binary) -> None:
    outcome = outcome_of(PUBLISH, "ada", Published(data, skip_history=True))
    assert outcome == Approval(PublishRequest("news", published), is_permitted=True, skip_history=True)


@pytest.mark.parametrize("request_", [RefreshRequest(), SubRefreshRequest("news")])
def test_a_refresh_goes_on_or_has_expired(request_: Request) -> None:
    assert outcome_of(request_, "ada", Refreshed(2e9, info=1)) == Renewal(2e9, Raw(b"1"))
    assert outcome_of(request_, "ada", Undecided(2e9)) == Renewal(2e9, is_decided=False)
    assert outcome_of(request_, "ada", EXPIRED) == errors.EXPIRED


def test_a_call_has_a_result_also_if_it_is_null() -> None:
    assert outcome_of(RpcRequest("now"), "ada", RpcAnswer()) == RpcResult(Raw(b"null"))
    assert outcome_of(RpcRequest("now"), "ada", RpcAnswer(b"\xff")) == RpcResult(Binary(b"\xff"))


@pytest.mark.parametrize(
    "why",
    [
        Refusal(400, "a"),
        Refusal(1999, "a"),
        errors.PERMISSION_DENIED,
        Refusal(103, "not for you"),
        Disconnect(4000, "a"),
        Disconnect(4999, "a"),
        errors.INVALID_TOKEN,
    ],
)
def test_codes_of_applications_and_of_the_protocol_are_valid(why: Refusal | Disconnect) -> None:
    assert checked_refusal(why) is why
    assert outcome_of(PUBLISH, "ada", why) is why


def test_texts_and_codes_of_other_types_are_made_plain() -> None:
    """Such as those of an IntEnum, or of a string that is marked as safe for HTML."""
    refused, closed = (
        checked_refusal(Refusal(HTTPStatus.UNAUTHORIZED, Text("a"), temporary=True)),
        checked_refusal(Disconnect(4000, Text("a"))),
    )
    assert (refused, closed) == (Refusal(401, "a", temporary=True), Disconnect(4000, "a"))
    outcome = outcome_of(
        ConnectRequest(), "", Connected(Text("ada"), subscriptions={Text("b"): Subscribed()})
    )
    assert isinstance(outcome, Approval)
    assert isinstance(outcome.claims, ConnectionClaims)
    assert isinstance(refused, Refusal)
    assert isinstance(closed, Disconnect)
    texts = [refused.message, closed.reason, outcome.claims.sub, *(outcome.claims.subs or ())]
    assert {type(text) for text in texts} == {str}
    assert type(refused.code) is int


@pytest.mark.parametrize(
    ("why", "sentence"),
    [
        (Refusal(399, "a"), "the code of an error must be from 400 to 1999, not 399"),
        (Refusal(3500, "a"), "the code of an error must be from 400 to 1999, not 3500"),
        (Refusal(4000, "a"), "the code of an error must be from 400 to 1999, not 4000"),
        (Disconnect(5000, "a"), "the code of a disconnect must be from 4000 to 4999, not 5000"),
        (Disconnect(1000, "a"), "the code of a disconnect must be from 4000 to 4999, not 1000"),
        (Disconnect(4000, ""), "the reason of a disconnect must have 1 to 123 bytes"),
        (Refusal(400, HALF), "the message of an error has half of a surrogate pair"),
        (Disconnect(4000, HALF), "the reason of a disconnect has half of a surrogate pair"),
        (untyped(Refusal, 400, ValueError("a")), "the message of an error must be a string, not ValueError"),
        (untyped(Refusal, 400.0, "a"), "the code of an error must be an int, not float"),
        (untyped(Refusal, "400", "a"), "the code of an error must be an int, not str"),
        (untyped(Refusal, 400, "a", temporary="no"), "temporary must be a bool, not str"),
        (untyped(Disconnect, 4000, None), "the reason of a disconnect must be a string, not NoneType"),
        (untyped(Disconnect, True, "a"), "the code of a disconnect must be an int, not bool"),
        (Disconnect(4000, "ä" * 62), "the reason of a disconnect must have 1 to 123 bytes"),
    ],
)
def test_other_codes_and_reasons_are_not_valid(why: Refusal | Disconnect, sentence: str) -> None:
    with pytest.raises(InvalidAnswer, match=sentence):
        checked_refusal(why)


@pytest.mark.parametrize(
    ("request_", "answer", "sentence"),
    [
        (ConnectRequest(), Subscribed(), "Subscribed does not answer ConnectRequest"),
        (SubscribeRequest("a"), True, "bool does not answer SubscribeRequest"),
        (ConnectRequest(), untyped(Connected, 7), "user must be a string, not int"),
        (ConnectRequest(), Connected(HALF), "user has half of a surrogate pair"),
        (ConnectRequest(), Connected("a", info=HALF), "surrogates not allowed"),
        (ConnectRequest(), Connected("a", data=[HALF]), "surrogates not allowed"),
        (ConnectRequest(), Connected("a", subscriptions={HALF: Subscribed()}), "a channel has half"),
        (ConnectRequest(), Connected("a", subscriptions={"b": Subscribed(HALF)}), "surrogates not allowed"),
        (ConnectRequest(), Connected("a", capabilities=[Capability((HALF,), ())]), "a pattern of capab"),
        (ConnectRequest(), Connected("a", expire_at=10**400), "too large"),
        (SubscribeRequest("a"), Subscribed(data=Raw(b'"\xff"')), "can't decode"),
        (RpcRequest("a"), RpcAnswer({HALF: 1}), "surrogates not allowed"),
        (ConnectRequest(), Connected("a", info=b"{"), "truncated"),
        (ConnectRequest(), Connected("a", info=object()), "object"),
        (ConnectRequest(), Connected("a", expire_at=-1), "expire_at must be a unix second"),
        (ConnectRequest(), untyped(Connected, "a", expire_at="2030"), "expire_at must be a unix second"),
        (ConnectRequest(), Connected("a", subscriptions={"": Subscribed()}), "has no name"),
        (ConnectRequest(), untyped(Connected, "a", subscriptions={"news": {}}), "has a dict, not Subscribed"),
        (ConnectRequest(), untyped(Connected, "a", capabilities=[{"channels": "a"}]), "Expected `array`"),
        (SubscribeRequest("a"), untyped(Subscribed, allow=["all"]), "Invalid enum value"),
        (PUBLISH, Published(Raw(b"{")), "truncated"),
    ],
)
def test_an_answer_that_is_not_valid_says_why(request_: Request, answer: Any, sentence: str) -> None:
    with pytest.raises(InvalidAnswer, match=sentence):
        outcome_of(request_, "ada", answer)
