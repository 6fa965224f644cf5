"""What ``tocsin load`` is made of: processes full of cheap sockets, a publisher, and an exact account.

The parent publishes, shows and judges; each worker process holds its share of the connections and records
what they hear. They exchange JSON lines (``messages``). ``ranges``, ``histogram``, ``record``, ``verdict``,
``frames`` and ``chunks`` are pure.
"""
