"""``tocsin revoke``, as a real process against a real node; docs/tokens.md has its use from end to end."""

from __future__ import annotations

import subprocess

import jwt
import pytest

from tests.support.configs import API_KEY
from tests.support.server import TOCSIN, Server
from tests.support.timing import STARTED
from tests.support.tokens import SECRET, seconds_from_now


def tocsin(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOCSIN), *arguments],
        capture_output=True,
        text=True,
        timeout=STARTED,
        check=False,
        env={"NO_COLOR": "1", "PATH": "/usr/bin:/bin", "TOCSIN_API_KEY": API_KEY},
    )


def test_a_token_and_a_user_are_revoked(server: Server) -> None:
    for arguments in (("token", "t1"), ("user", "rae", "--ttl", "1h", "--block")):
        done = tocsin("revoke", *arguments, "--url", server.url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
    done = tocsin("revoke", *arguments, "--url", server.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_token_is_made_with_an_id() -> None:
    printed = tocsin("token", "--user", "rae", "--id", "t1", "--ttl", "10m", "--secret", SECRET).stdout
    claims = jwt.decode(printed.strip(), SECRET, algorithms=["HS256"])
    assert (claims["jti"], claims["exp"] > seconds_from_now(500)) == ("t1", True)
