"""Who sends a request to the HTTP API: by a key in one of three places, or by a signature."""

from __future__ import annotations

import hmac
import time
from hashlib import sha256

from starlette.exceptions import HTTPException

from tocsin_server.api.callers import Caller, LimitReached, Scope
from tocsin_server.api.http import ApiRequest
from tocsin_server.api.signatures import SCHEME as SIGNATURE_SCHEME
from tocsin_server.api.signatures import SeenSignatures, Signature
from tocsin_server.config.api_key_options import HASH_PREFIX, key_digest
from tocsin_server.config.loading import Settings
from tocsin_server.core.glob import Glob

HEADER = "X-API-Key"
_HEADER = HEADER.lower().encode()
SCHEME = "apikey"
PARAMETER = "api_key"

KEY_IN_ADDRESS = (
    f"A key in the address is not accepted ([api] allow_key_in_address): send it in the header {HEADER}."
)


class Unauthorized(HTTPException):
    """A request without valid credentials: 401 with `detail`. `reason` is for the operator."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(401, detail)
        self.reason = reason


class ApiKeys:
    """The configured keys and their owners. Without keys only an insecure API accepts requests.

    The mutable state is the owners of the keys that callers have sent, and the signatures that were used.
    """

    def __init__(self, settings: Settings) -> None:
        api = settings.api
        self._accepts_parameter = api.allow_key_in_address
        self._window = api.signature_window
        self._seen = SeenSignatures(api.signature_window)
        self._insecure = Caller("", api, calls_per_second=api.calls_per_second) if api.insecure else None
        self._owners: list[tuple[bytes, Caller]] = []
        self._found: dict[bytes, Caller] = {}
        """The owner by the header of a request: at most one header for each configured key.

        It is found by a secret hash of all its bytes, so the time does not tell how near a guess is.
        """
        self._named: dict[str, tuple[Caller, list[str]]] = {}
        for number, key in enumerate(api.keys):
            caller = Caller(f"api.keys[{number}]", api, calls_per_second=api.calls_per_second)
            self._owners.append((key_digest(key), caller))
        for name, options in settings.api_keys.items():
            scope = Scope(frozenset(options.methods), [Glob(glob) for glob in options.channels])
            rate = options.calls_per_second or api.calls_per_second
            caller = Caller(name, api, scope, options.expires_at, rate)
            self._owners += [(key_digest(key), caller) for key in options.keys]
            self._named[name] = caller, [key for key in options.keys if not key.startswith(HASH_PREFIX)]

    def caller_of(self, request: ApiRequest, path: str) -> tuple[Caller, Signature | None]:
        """Return who sends a request, and its signature if it has one, whose digest the body must have.

        `path` is that of the route, wherever the application is mounted.

        Raises Unauthorized, and LimitReached where too many signatures are remembered.
        """
        if self._insecure is not None:
            return self._insecure, None
        headers = request.headers
        has_header_alone = b"authorization" not in headers and not (self._accepts_parameter and request.query)
        if has_header_alone and (found := self._found.get(headers.get(_HEADER, b""))):
            return _valid(found), None
        if b"authorization" in headers:
            scheme, _, credentials = request.header(b"authorization").partition(" ")
            if scheme.lower() == SIGNATURE_SCHEME:
                return self._signer_of(credentials, path)
        owner: Caller | None = None
        keys = _keys_of(request, self._accepts_parameter)
        for key in keys:
            given = sha256(key).digest()
            for digest, caller in self._owners:  # all of them: a match must not take less time
                if hmac.compare_digest(given, digest):
                    owner = owner or caller
        if owner is None:
            raise self._unauthorized(request, has_key=bool(keys))
        if has_header_alone:
            self._found[headers[_HEADER]] = owner
        return _valid(owner), None

    def accepts(self, request: ApiRequest) -> bool:
        """Whether a request has a valid key or signature, with any scope."""
        try:
            self.caller_of(request, request.full_path)
        except (Unauthorized, LimitReached):
            return False
        return True

    def _signer_of(self, credentials: str, path: str) -> tuple[Caller, Signature]:
        signature = Signature.read(credentials)
        if signature is None:
            raise Unauthorized("its signature is malformed", "The signature is malformed.")
        if signature.key not in self._named:
            raise Unauthorized("its signature names no key of [api_keys]")
        caller, keys = self._named[signature.key]
        if not keys:
            reason = f'the API key "{caller.name}" is configured as a hash, which verifies no signature'
            raise Unauthorized(reason)
        if not signature.is_by(keys, path):
            raise Unauthorized(f'it is not signed with the API key "{caller.name}"')
        difference = abs(time.time() - int(signature.time))
        if difference > self._window:
            reason = f"The time of the signature differs from that of the server by {difference:.0f} s."
            raise Unauthorized(reason, reason)
        is_new = self._seen.add(signature.signature.lower(), time.monotonic())
        if is_new is None:
            raise LimitReached("api.signature_window", "too many signed requests", self._window)
        if not is_new:
            raise Unauthorized("its signature was used before", "The signature was used before.")
        return _valid(caller), signature

    def _unauthorized(self, request: ApiRequest, *, has_key: bool) -> Unauthorized:
        """Why a request is refused. Shows no key."""
        if not has_key and request.parameter(PARAMETER) is not None:
            return Unauthorized(KEY_IN_ADDRESS, KEY_IN_ADDRESS)
        if not self._owners:
            return Unauthorized("api.keys is not set")
        return Unauthorized("its API key is not valid" if has_key else "it has no API key")


def _valid(caller: Caller) -> Caller:
    if caller.is_expired():
        raise Unauthorized(f'the API key "{caller.name}" is expired')
    return caller


def _keys_of(request: ApiRequest, accepts_parameter: bool) -> list[bytes]:
    keys: list[bytes] = []
    if b"authorization" in request.headers:
        scheme, _, credentials = request.header(b"authorization").partition(" ")
        if scheme.lower() == SCHEME and credentials.strip():
            keys.append(credentials.strip().encode())
    if key := request.header(_HEADER):
        keys.append(key.encode())
    if accepts_parameter and (parameter := request.parameter(PARAMETER)):
        keys.append(parameter.encode(errors="replace"))
    return keys
