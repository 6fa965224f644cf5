-- Read a key, and set it before if it does not exist, even if Redis is full.
--   KEYS     the key
--   ARGV     value
--   returns  its value
local value = redis.call('GET', KEYS[1])
if value then return value end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
