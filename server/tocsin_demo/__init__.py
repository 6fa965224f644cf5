"""A small request-response application, and what a push server adds to it.

Three tiers: a page, stateless handlers, a database. The application does not reach into the push server.
It publishes over HTTP, as a back end in any language does.
"""
