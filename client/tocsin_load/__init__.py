"""The load tool, ``tocsin load``: many connections in worker processes, a publisher, and an exact account.

The parent process publishes and shows the progress; each worker process holds its share of the connections
and records the publications that they receive. They exchange JSON lines (``messages``). At the end the parent
compares acknowledged and received publications (``deliveries``). ``range_set``, ``histogram``, ``receipts``,
``deliveries``, ``frames`` and ``sse_parser`` are pure.
"""
