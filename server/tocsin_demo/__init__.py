"""A small request-response application, and what it gains from a push server beside it.

Three tiers as everywhere: a page, stateless handlers, a database. Nothing here reaches into the push server:
whatever the application wants its visitors to know at once, it publishes over HTTP, as a back end in any
language would.
"""
