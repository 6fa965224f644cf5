"""The exception of the tests' clients for a refusal."""


class Refused(Exception):
    """An error reply of the client protocol (docs/protocol.md §7) or of the HTTP API (§14)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
