"""The protobuf codec: the schema as a table, its classes, and the frames."""
