"""The fault suite: real nodes, a real Redis, and a record of every acknowledged publication: `make chaos`."""
