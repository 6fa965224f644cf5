"""The pub/sub connection of a node, and the proof that it works."""
