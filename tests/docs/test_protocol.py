"""docs/protocol.md: its conversations take place as written, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.conversation import conversing
from tests.docs.examples import Example, agrees, page, shell
from tests.support.server import Server
from tests.support.tokens import connection_token, seconds_from_now, subscription_token
from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.core.phases import TRANSITIONS
from tocsin_server.errors import Disconnect, Refusal, Unsubscribed
from tocsin_server.protocol import messages
from tocsin_server.protocol.messages import Wire

PAGE = page("protocol.md")
SECRET = PAGE.config["client"]["token_hmac_secret"]
CITATION = re.compile(r"protocol\.?(?:md)? ((?:(?:, | to | and )?§\d+(?:\.\d+)?)+)", re.IGNORECASE)
CONNECT = """
→ {"id":1,"connect":{"token":"TOKEN"}}
← {"id":1,"connect":{"client":"…","version":"…","expires":true,"ttl":…,"ping":2,"pong":true,"node":"…"}}
"""
SOURCES = Path(__file__).parents[2]


def rows(heading: str) -> list[list[str]]:
    """The rows of the tables in a section, without their heads."""
    section = re.split(r"(?m)^## ", PAGE.text)
    (text,) = [part for part in section if part.startswith(heading)]
    lines = re.findall(r"(?m)^\|(.*)\|$", text)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("|- ")]


def named(example: Example) -> str:
    """A name for one example of a section."""
    number = [other.text for other in PAGE.of("frames") if other.heading == example.heading].index(
        example.text
    )
    return f"{example.heading.split('.')[0]}-{number + 1}"


@pytest.mark.parametrize("example", PAGE.of("frames"), ids=named)
async def test_a_conversation_takes_place_as_written(documented: Server, example: Example) -> None:
    """Every line, byte for byte, except for `…`."""
    in_an_hour, a_minute_ago = seconds_from_now(3600), seconds_from_now(-60)
    words = {
        "TOKEN": connection_token("ann", secret=SECRET, exp=in_an_hour),
        "EXPIRED_TOKEN": connection_token("ann", secret=SECRET, exp=a_minute_ago),
        "SUB_TOKEN": subscription_token("ann", "private:1", secret=SECRET, exp=in_an_hour),
    }
    async with conversing(documented.url, words) as conversation:
        if '"connect"' not in example.text.splitlines()[0]:
            await conversation.play(CONNECT)
        await conversation.play(example.text)


@pytest.mark.parametrize("example", PAGE.of("sh"), ids=lambda example: example.heading)
async def test_a_command_prints_the_output_shown(documented: Server, folder: Path, example: Example) -> None:
    printed = await shell(example.text, folder, TOCSIN=documented.url)
    assert agrees(example.output, printed), printed


def test_the_table_of_errors_is_complete() -> None:
    """Code, message and temporary of every error in `errors.py`."""
    shown = {(int(code), message, temporary == "yes") for code, message, temporary, *_ in code_rows("7.")}
    refusals = {value for value in vars(errors).values() if isinstance(value, Refusal)}
    assert shown == {(refusal.code, refusal.message, refusal.temporary) for refusal in refusals}


def test_a_client_retries_after_the_errors_for_which_the_page_says_so() -> None:
    """A temporary error, or 109."""
    for code, _, temporary, _, client in code_rows("7."):
        expected = "retry" if temporary == "yes" else "fresh token" if code == "109" else "give up"
        assert client == expected, code


def test_the_table_of_disconnects_is_complete() -> None:
    """Code and reason of every disconnect in `errors.py`, and whether clients reconnect."""
    shown = {(int(code), reason, advice == "yes") for code, reason, advice, *_ in code_rows("8.")}
    disconnects = {value for value in vars(errors).values() if isinstance(value, Disconnect)}
    assert shown == {(why.code, why.reason, why.may_reconnect) for why in disconnects}


def test_the_table_of_unsubscribes_is_complete() -> None:
    """Code and reason of every unsubscribe in `errors.py`; from 2500 on clients subscribe again."""
    shown = {(int(code), reason, advice == "yes") for code, reason, advice, *_ in code_rows("9.")}
    unsubscribes = {value for value in vars(errors).values() if isinstance(value, Unsubscribed)}
    assert shown == {(why.code, why.reason, why.code >= 2500) for why in unsubscribes}


def code_rows(heading: str) -> list[list[str]]:
    """The rows that begin with a code."""
    return [row for row in rows(heading) if row[0].isdigit()]


def used_reasons() -> set[str]:
    """The names of `errors.py` that the server uses, except to translate them into HTTP statuses."""
    server = (SOURCES / "server" / "tocsin_server").rglob("*.py")
    code = "\n".join(
        path.read_text() for path in server if path.name != "errors.py" and "refus" not in path.name
    )
    imports = re.findall(r"from tocsin_server\.errors import (\([^)]*\)|[^\n]*)", code)
    made = {name.upper() for name in re.findall(r"\b(bad_request)\(", code)}
    return (
        made
        | set(re.findall(r"\berrors\.([A-Z_]+)", code))
        | set(re.findall(r"[A-Z_]{2,}", " ".join(imports)))
    )


def test_the_page_says_never_where_the_server_never_sends_a_code() -> None:
    used = used_reasons()
    never = {
        (int(row[0]), row[1])
        for heading in ("7.", "8.", "9.")
        for row in code_rows(heading)
        if row[3].startswith("Never")
    }
    assert never == {
        (value.code, value.message if isinstance(value, Refusal) else value.reason)
        for name, value in vars(errors).items()
        if isinstance(value, Refusal | Disconnect | Unsubscribed) and name not in used
    }


def test_the_page_names_every_member_of_every_message() -> None:
    kinds = [
        value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, Wire)
    ]
    assert len(kinds) > 30
    for message in kinds:
        for member in message.__struct_fields__:
            assert re.search(rf"[`\"]{member}[`\"]", PAGE.text), f"{message.__name__}.{member}"


def test_the_defaults_are_those_of_the_options() -> None:
    for key, default in rows("17.")[1:]:
        section, name = key.strip("`").split(".")
        options = {"client": ClientOptions(), "channels": ChannelOptions()}[section]
        assert float(default.split()[0]) == getattr(options, name), key


def test_the_table_of_phases_is_the_one_in_the_code() -> None:
    """Made from it: copy what this test expects."""
    shown = PAGE.text.partition("<!-- session-transitions -->")[2].partition("<!-- /session-transitions -->")[
        0
    ]
    rows = [
        f"| {phase.value} | {cause.value} | {following.value} |"
        for (phase, cause), following in TRANSITIONS.items()
    ]
    expected = "\n".join(["| phase | cause | next phase |", "|---|---|---|", *rows])
    assert shown.strip() == expected, expected


def test_every_section_that_the_code_names_exists() -> None:
    """`protocol §10` and the like, in the server, the client and the tests."""
    sections = set(re.findall(r"(?m)^## (\d+)\. ", PAGE.text))
    assert sections == {str(number) for number in range(1, 18)}
    for folder in ("server", "client", "tests"):
        for path in (SOURCES / folder).rglob("*.py"):
            for citation in CITATION.findall(path.read_text()):
                assert set(re.findall(r"§(\d+)", citation)) <= sections | {"18"}, path
