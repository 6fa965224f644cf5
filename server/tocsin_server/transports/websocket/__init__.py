"""WebSocket connections, on the raw transport and over ASGI."""
