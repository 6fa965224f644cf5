"""``tocsin revoke`` against a real node; docs/tokens.md has its use from end to end."""

from __future__ import annotations

import jwt
import pytest

from tests.support.command_line import Ended, tocsin
from tests.support.configs import API_KEY
from tests.support.server import Server
from tests.support.tokens import SECRET, seconds_from_now


def revoke(server: Server, *arguments: str) -> Ended:
    return tocsin("revoke", *arguments, "--url", server.url, TOCSIN_API_KEY=API_KEY)


def test_a_token_and_a_user_are_revoked(server: Server) -> None:
    for arguments in (("token", "t1"), ("user", "rae", "--ttl", "1h", "--block")):
        assert revoke(server, *arguments) == (0, [], "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("token", "t1", "--block", "--ttl", "1h"),
            "--issued-before, --channel and --block belong to a user",
        ),
        (("user", "rae", "--block"), "--block needs --ttl"),
        (("user", "rae", "--channel", "nowhere:1"), "unknown channel"),
    ],
)
def test_a_mistake_is_explained_in_one_sentence(
    server: Server, arguments: tuple[str, ...], said: str
) -> None:
    code, lines, errors = revoke(server, *arguments)
    assert (code, lines) == (1, [])
    assert said in errors
    assert errors.count("\n") == 1


def test_a_token_is_made_with_an_id() -> None:
    [token] = tocsin("token", "--user", "rae", "--id", "t1", "--ttl", "10m", "--secret", SECRET).lines
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert (claims["jti"], claims["exp"] > seconds_from_now(500)) == ("t1", True)
