"""A client's session: a state machine from events to effects (pure)."""
