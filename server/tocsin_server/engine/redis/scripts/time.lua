-- Read the clock of the Redis server that holds the leases.
--   KEYS     nodes
--   returns  {seconds, microseconds}
return redis.call('TIME')
