-- Add a lease. The first command lets a full Redis run the second one.
--   KEYS     nodes
--   ARGV     lease
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], 0)
