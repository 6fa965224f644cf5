-- Count the clients and users of a channel's presence in one atomic step.
--   KEYS     presence, users
--   returns  {clients, users}
return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2])}
