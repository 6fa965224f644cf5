-- Put a connection into a channel's presence, or replace what is said of it.
--   KEYS  presence, users
--   ARGV  client, entry, PUBLISH or SPUBLISH, name of the announcements, announcement if it was not there (may be '')
local presence, users = KEYS[1], KEYS[2]
local client, entry, publish, announcements, join = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local old = redis.call('HGET', presence, client)
if old then
  discount(users, user_of(old))
end
redis.call('HSET', presence, client, entry)
redis.call('HINCRBY', users, user_of(entry), 1)
if not old and join ~= '' then
  redis.call(publish, announcements, join)
end
