"""The engine of nodes that share a Redis: logs, presence and leases lie there, pub/sub announces."""
