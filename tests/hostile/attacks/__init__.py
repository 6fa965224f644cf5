"""The attacks, by what the attacker has: a socket, a connection, a key, or Redis."""
