-- Declare a lease dead that was not renewed since a beat. From then on nobody can renew it.
--   KEYS  nodes
--   ARGV  lease, beat
-- Answers whether it is dead now.
local beat = redis.call('HGET', KEYS[1], ARGV[1])
if beat == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], 'dead')
  return 1
end
return beat == 'dead' and 1 or 0
