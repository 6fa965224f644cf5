"""The figures the design stands on, each a ratio inside one run: `make bench`."""
