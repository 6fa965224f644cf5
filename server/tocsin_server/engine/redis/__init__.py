"""The engine of nodes that share a Redis, which stores their state and carries their messages."""
