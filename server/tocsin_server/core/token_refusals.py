"""Why a token is refused: what connections and subscriptions say alike."""

from __future__ import annotations

from tocsin_server import errors
from tocsin_server.core.tokens import (
    TokenExpired,
    TokenNotYetValid,
)
from tocsin_server.errors import Refusal

REVOKED = "it was revoked"


def expired(error: TokenExpired) -> Refusal:
    """Return the refusal of a token that is not valid now."""
    is_early = isinstance(error, TokenNotYetValid)
    return errors.because(errors.TOKEN_EXPIRED, "it is not valid yet") if is_early else errors.TOKEN_EXPIRED
