-- Renew the given leases that are not dead, and read all leases. The first command lets a full Redis run the others: a
-- node without a lease would count as dead.
--   KEYS     nodes
--   ARGV     leases
--   returns  {lease, count, lease, count, …}
redis.call('HDEL', KEYS[1], '')
for _, lease in ipairs(ARGV) do
  local count = redis.call('HGET', KEYS[1], lease)
  if count and count ~= 'dead' then
    redis.call('HINCRBY', KEYS[1], lease, 1)
  end
end
return redis.call('HGETALL', KEYS[1])
