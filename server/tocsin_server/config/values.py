"""The kinds of values that options have: how each may be written, and what makes it invalid.

This module is pure. The message of a validator completes the sentence "KEY must be …".
"""

import ipaddress
import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from tocsin_server.config.patterns import LinearPattern, PatternError
from tocsin_server.config.pem import public_key_pem

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}")
_PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _seconds(value: object) -> object:
    """The seconds in a number, or in a string such as `5m` or `1h30m`."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str):
        if _PLAIN_NUMBER.fullmatch(text):  # a string, because environment variables are strings
            return float(text)
        if _DURATION.fullmatch(text):
            return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    elif isinstance(text, int | float) and not isinstance(text, bool):
        return text
    raise ValueError('a number of seconds, or a string such as "250ms", "300s", "5m" or "720h"')


def in_seconds(seconds: float) -> str:
    """A number of seconds, as messages show it."""
    return f"{seconds:.12g} s"


def string_list(value: object) -> object:
    """A list unchanged; a string, which the environment gives, split at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_EXACT_ORIGINS = ("*", "self", "null", "file://")
"""`null` is the origin of sandboxed frames and of some local pages, `file://` that of others."""


def origin_pattern(value: str) -> str:
    """A pattern of origins, without a port that browsers omit."""
    scheme, found, host = value.partition("://")
    is_origin = scheme and found and host and "/" not in host and value.isascii()
    if value not in _EXACT_ORIGINS and not is_origin:
        raise ValueError(
            '"*", "self", or origins as browsers send them, in ASCII and without a path, such as '
            '"https://*.example.com", "null" or "file://"'
        )
    return value.removesuffix(_DEFAULT_PORTS.get(scheme.lower(), ""))  # browsers omit it


UNIX_PREFIX = "unix:"
FD_PREFIX = "fd:"
SYSTEMD_HOST = "systemd"


def is_passed_or_unix(host: str) -> bool:
    """Whether a host is a unix socket or a socket that another process passes, which have no port."""
    return is_passed(host) or host.startswith(UNIX_PREFIX)


def is_passed(host: str) -> bool:
    """Whether a host is a socket that another process passes."""
    return host == SYSTEMD_HOST or host.startswith(FD_PREFIX)


def host_list(value: object) -> object:
    """Several hosts, from a list, as one string with commas between them."""
    names = string_list(value)
    if value == [] or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return value
    for name in names:
        is_unix, is_fd = name.startswith(UNIX_PREFIX), name.startswith(FD_PREFIX)
        is_wrong = (is_unix and not name.startswith(f"{UNIX_PREFIX}/")) or (
            is_fd and not name.removeprefix(FD_PREFIX).isdecimal()
        )
        if not name or is_wrong:
            names = ()
    if not names:
        raise ValueError('addresses or host names, "unix:/PATH", "fd:NUMBER" or "systemd"')
    return ",".join(names)


def proxy_network(value: str) -> str:
    """A network, an address, or "unix"."""
    try:
        return value if value == "unix" else str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f'addresses or networks, such as "10.0.0.0/8", or "unix" ({error})') from None


def network(value: str) -> str:
    """A network or an address."""
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f'addresses or networks, such as "10.0.0.0/8" ({error})') from None


def regular_expression(value: str) -> str:
    """A regular expression that can be matched in linear time, or an empty string."""
    try:
        if value:
            LinearPattern(value)
    except PatternError as error:
        raise ValueError(f"a regular expression of RE2 ({error})") from error
    return value


def public_key(value: str) -> str:
    """A public key in PEM, or an empty string."""
    return public_key_pem(value) if value else value


def api_key(value: str) -> str:
    """A key that a header can carry, or its hash."""
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("printable ASCII without a space at its ends, since a header carries it")
    if value.startswith("sha256:") and not _HASH.fullmatch(value):
        raise ValueError('"sha256:" and 64 hexadecimal digits, or a key that begins otherwise')
    return value


def long_secret(value: str) -> str:
    """A secret that cannot be guessed, or an empty string."""
    if value and len(value) < CONTROL_SECRET_LENGTH:
        raise ValueError(f"at least {CONTROL_SECRET_LENGTH} characters long")
    return value


CONTROL_SECRET_LENGTH = 16

ExactString = Annotated[str, StringConstraints(strip_whitespace=False)]
"""A string in which white space counts, also at its ends."""
Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
"""Seconds, which may be written with a unit."""
PositiveDuration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=1)]
"""A bound that cannot be switched off: everything that is queued for a client is bounded."""
OptionalLimit = Annotated[int, Field(ge=0)]
"""A bound, or 0 for no bound."""

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""So many per second, or 0 for any number."""


class Options(BaseModel):
    """A section of the configuration. It is immutable and refuses unknown keys.

    White space around a string does not count: a file with a secret often ends with a line break.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True
    )
