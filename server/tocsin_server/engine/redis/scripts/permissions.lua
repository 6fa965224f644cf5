-- Try every command that a node and its scripts use, and return the errors. The key is empty before and after.
--   KEYS     a key that no other node uses
--   ARGV     PUBLISH or SPUBLISH, a pub/sub name that no other node uses
--   returns  {command, error, command, error, …}
local key, publish_command, pubsub_name = KEYS[1], ARGV[1], ARGV[2]
local refused = {}

local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    refused[#refused + 1] = select(1, ...)
    refused[#refused + 1] = reply.err
  end
end

try('HSET', key, 'field', 0)
try('HINCRBY', key, 'field', 1)
try('HEXISTS', key, 'field')
try('HGET', key, 'field')
try('HGETALL', key)
try('HKEYS', key)
try('HLEN', key)
try('HMGET', key, 'field')
try('HVALS', key)
try('HDEL', key, 'field')
try('SADD', key, 'member')
try('SMEMBERS', key)
try('SREM', key, 'member')
try('XADD', key, '1-1', 'field', 'value')
try('XRANGE', key, '-', '+')
try('XREVRANGE', key, '+', '-')
try('XLEN', key)
try('XDEL', key, '2-2')
try('XTRIM', key, 'MAXLEN', 1)
try('PEXPIRE', key, 1000)
try('PTTL', key)
try('DEL', key)
try('SET', key, 'value', 'PX', 1000)
try('GET', key)
try('DEL', key)
try('TIME')
try(publish_command, pubsub_name, '')
return refused
