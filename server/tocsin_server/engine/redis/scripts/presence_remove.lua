-- Take a connection out of a channel's presence.
--   KEYS  presence, users
--   ARGV  client
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then
  redis.call('HDEL', KEYS[1], ARGV[1])
  discount(KEYS[2], user_of(old))
end
