-- Add a connection of a user, unless the user has too many others.
--   KEYS     connections
--   ARGV     client, node, limit, time to live (ms), nodes that are dead
--   returns  the nodes of the connections if there are too many, else {}
local connections = KEYS[1]
local client, node, limit, ttl_ms = unpack(ARGV)

if #ARGV > 4 then
  local dead = {}
  for i = 5, #ARGV do dead[ARGV[i]] = true end
  local all = redis.call('HGETALL', connections)
  for i = 1, #all, 2 do
    if dead[all[i + 1]] then redis.call('HDEL', connections, all[i]) end
  end
end
if redis.call('HEXISTS', connections, client) == 0 and redis.call('HLEN', connections) >= tonumber(limit) then
  return redis.call('HVALS', connections)
end
redis.call('HDEL', connections, '')  -- lets a full Redis run the next command
redis.call('HSET', connections, client, node)
redis.call('PEXPIRE', connections, ttl_ms)
return {}
