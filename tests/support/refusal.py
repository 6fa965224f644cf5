"""How the tests' clients say that the server refused: with the code that the protocol names."""


class Refused(Exception):
    """An error reply, of the client protocol (protocol §7) or of the HTTP API (§14)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
