-- Remove a client's entry from a channel's presence.
--   KEYS  presence, users
--   ARGV  client
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then
  redis.call('HDEL', KEYS[1], ARGV[1])
  decrement_user(KEYS[2], user_of(old))
end
