-- Write a node's connections of a user again, and remove those of this node that ended.
--   KEYS     connections
--   ARGV     node, time to live (ms), the number of clients that are connected, these clients, clients that are connecting
local connections = KEYS[1]
local node, ttl_ms, count = ARGV[1], ARGV[2], tonumber(ARGV[3])

local known = {}
for i = 4, #ARGV do known[ARGV[i]] = true end
local all = redis.call('HGETALL', connections)
for i = 1, #all, 2 do
  if all[i + 1] == node and not known[all[i]] then redis.call('HDEL', connections, all[i]) end
end
redis.call('HDEL', connections, '')  -- lets a full Redis run the next command
for i = 4, 3 + count do
  redis.call('HSET', connections, ARGV[i], node)
end
redis.call('PEXPIRE', connections, ttl_ms)
