-- Renew leases that are alive, and see all.
--   KEYS  nodes
--   ARGV  leases
-- Answers lease, beat, lease, beat …
for _, lease in ipairs(ARGV) do
  local beat = redis.call('HGET', KEYS[1], lease)
  if beat and beat ~= 'dead' then
    redis.call('HINCRBY', KEYS[1], lease, 1)
  end
end
return redis.call('HGETALL', KEYS[1])
