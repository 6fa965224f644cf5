"""Redis Cluster: commands and subscriptions are routed to the master of their slot."""
