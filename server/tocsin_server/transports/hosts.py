"""Which `Host` a request may name, where no key protects a node.

A page's own site can resolve to 127.0.0.1 (DNS rebinding). The page's requests then reach a node on the
user's machine, from the origin that they name as their host. Only the name tells them from those of the user.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

from tocsin_server.transports.origins import EVERY_ORIGIN, is_allowed

HOST_REFUSED = (
    "An insecure node accepts IP addresses, localhost and names without a dot as Host, "
    "and those of allowed_origins."
)

_PORT = re.compile(r":[0-9]*$")
_OWN_NAMES = (socket.gethostname().lower(), socket.gethostname().lower() + ".local")


def names_another_site(host: str, origins: Sequence[str]) -> bool:
    """Whether the Host of a request may be the name of another site, which resolves to this machine.

    Such a name has a dot, and is neither this machine's own nor that of an allowed origin.
    """
    name = _PORT.sub("", host).lower().removesuffix(".")
    if "." not in name or name.endswith(".localhost") or name in _OWN_NAMES or _is_address(name):
        return False
    named = [pattern for pattern in origins if pattern != EVERY_ORIGIN]
    return not any(is_allowed(f"{scheme}://{host}", "", named) for scheme in ("http", "https"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
