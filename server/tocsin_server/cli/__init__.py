"""The commands that the server adds to `tocsin`, as entry points of the group `tocsin.commands`."""
