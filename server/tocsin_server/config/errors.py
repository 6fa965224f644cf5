"""Configuration errors as sentences: the key, its value, where it was set and what was expected."""

import difflib
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Location: TypeAlias = tuple[int | str, ...]
"""Where a value is: `("client", "ping_interval")`, `("api", "keys", 0)`, or a section: `("channels",)`."""

NAMED_SECTIONS = {
    "namespaces": "a namespace",
    "issuers": "an issuer",
    "api_keys": "an API key",
    "webhooks": "a webhook",
    "proxies": "a proxy",
}
"""The sections that have names, and what such a name is the name of."""

_SECRETS = {
    ("client", "token_hmac_secret"),
    ("client", "token_secrets"),
    ("client", "token_keys"),
    ("api", "keys"),
    ("engine", "url"),
    ("outbox", "url"),
}
_NAMED_SECRETS = {"secrets", "keys", "secret", "static_headers"}
_SHOWN_CHARACTERS = 60
_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "model_type": "a table of options",
    "string_pattern_mismatch": "a string that matches {pattern}",
    "string_type": "a string",
    "tuple_type": "a list of strings",
    "value_error": "{error}",
}
"""What was expected, by the type of pydantic's error, in the words of a configuration file."""


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds one sentence for each configuration error."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def sentences(
    error: ValidationError,
    origin: Callable[[Location], str],
    known_keys: Callable[[Location], Iterable[str]],
) -> list[str]:
    """One sentence for each configuration error, in the order of the sections.

    `origin` returns where a location was set ("tocsin.toml"), or "" if that cannot be known. `known_keys`
    returns the keys that are valid in its place. The value of a secret, of an unknown key or of a section is
    never shown.
    """
    return [_sentence(details, origin, known_keys) for details in error.errors(include_url=False)]


def _sentence(
    details: "ErrorDetails",
    origin: Callable[[Location], str],
    known_keys: Callable[[Location], Iterable[str]],
) -> str:
    location = details["loc"]
    where = f" in {place}" if (place := origin(location)) else ""
    if details["type"] == "extra_forbidden":
        return f"{_name(location)}{where} is unknown{suggestion(str(location[-1]), known_keys(location))}"
    expected = _expected(details)
    if not location:
        return expected if expected.endswith("?") else f"{expected}."
    if is_section(location):
        verb = ":" if details["type"] == "value_error" else " must be"
        return f"{_name(location)}{where}{verb} {expected}."
    if _is_secret(location):
        return f"{_name(location)}{where} must be {expected}. Its value is not shown, because it is a secret."
    return f"{_name(location)} is {_shown(details['input'])}{where}, but must be {expected}."


def is_section(location: Location) -> bool:
    """Whether a location is a table of options, rather than one of them."""
    return len(location) == 1 or (len(location) == 2 and location[0] in NAMED_SECTIONS)


def _is_secret(location: Location) -> bool:
    if location[0] in NAMED_SECTIONS:
        return len(location) > 2 and location[2] in _NAMED_SECRETS
    return location[:2] in _SECRETS


def _expected(details: "ErrorDetails") -> str:
    if details["type"] not in _EXPECTED:
        return f"valid ({details['msg']})"
    return _EXPECTED[details["type"]].format(**details.get("ctx", {}))


def _name(location: Location) -> str:
    """The key as a user writes it: `client.ping_interval`, `api.keys[0]`, `[namespaces.chat]`."""
    if location[-1:] == ("[key]",):
        kind = NAMED_SECTIONS.get(str(location[0]), "a claim")
        return f"The name of {'a header' if 'static_headers' in location[2:-1] else kind}"
    name = ".".join(str(part) for part in location if isinstance(part, str))
    name += "".join(f"[{part}]" for part in location if isinstance(part, int))
    return f"[{name}]" if is_section(location) else name


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the known name that resembles it, if there is one."""
    similar = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {similar[0]}?" if similar else "."


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
