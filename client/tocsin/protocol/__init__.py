"""The client protocol: messages, and the codec that turns them into text (pure)."""
