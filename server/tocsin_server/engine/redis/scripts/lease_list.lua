-- Note on a lease's list that it has entries in a channel.
--   KEYS     the list
--   ARGV     channel, 1 if this runs even if Redis is full
if ARGV[2] == '1' then redis.call('SREM', KEYS[1], '') end
redis.call('SADD', KEYS[1], ARGV[1])
