"""The signature of a request to the application's back end: that it comes from a node, and when (pure).

    X-Tocsin-Signature: t=1767225600,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd

`v1` is the HMAC-SHA256 of `<t>.<body>` with the secret that both have, in hexadecimal. A receiver compares
it, and refuses a `t` that is minutes old, so that a recorded request cannot be sent again.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

SIGNATURE_HEADER = "x-tocsin-signature"


def signature(secrets: Iterable[bytes], body: bytes, unix_time: int) -> str:
    """Return the value of the header for a body. With several secrets it has a `v1` for each of them."""
    signed = b"%d.%b" % (unix_time, body)
    digests = (hmac.digest(secret, signed, "sha256").hex() for secret in secrets)
    return ",".join([f"t={unix_time}", *(f"v1={digest}" for digest in digests)])
