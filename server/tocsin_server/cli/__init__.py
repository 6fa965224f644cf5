"""Commands that the server package adds to `tocsin`, as entry points of the group `tocsin.commands`."""
