"""`make bench`: the figures on which the design is based, each a ratio within one run."""
