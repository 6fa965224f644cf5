"""How bytes reach a session and come back: raw WebSocket, WebSocket over ASGI, Server-Sent Events."""
