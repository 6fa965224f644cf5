"""Where state lives that outlasts a connection, behind three small interfaces: broker, presence, nodes."""
