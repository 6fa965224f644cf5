"""How a client reaches a server: WebSocket, Server-Sent Events and HTTP."""
