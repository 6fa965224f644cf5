-- What Redis' clock shows, of the node that holds a key.
--   KEYS  nodes
-- Answers {seconds, microseconds}.
return redis.call('TIME')
