-- Mark a lease as dead if it has not been renewed since a count. A dead lease cannot be renewed.
--   KEYS     nodes
--   ARGV     lease, count
--   returns  1 if the lease is dead now, else 0
local count = redis.call('HGET', KEYS[1], ARGV[1])
if count == ARGV[2] then
  redis.call('HDEL', KEYS[1], '')  -- lets a full Redis run the next command
  redis.call('HSET', KEYS[1], ARGV[1], 'dead')
  return 1
end
return count == 'dead' and 1 or 0
