"""Redis Cluster: calls and channels are routed to the server of their slot."""
