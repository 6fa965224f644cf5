-- Add a client's entry to a channel's presence, or replace it.
--   KEYS  presence, users
--   ARGV  client, entry, PUBLISH or SPUBLISH, pub/sub name of the channel, join to publish if the entry is new ('': none),
--         how many entries there may be (0: any number), 1 if this runs even if Redis is full
--   returns  1, or 0 if the entry is new and there are so many already
local presence, users = KEYS[1], KEYS[2]
local client, entry, publish_command, pubsub_name, join, limit, runs_if_full = unpack(ARGV)

if runs_if_full == '1' then redis.call('HDEL', presence, '') end
local old = redis.call('HGET', presence, client)
if not old and limit ~= '0' and redis.call('HLEN', presence) >= tonumber(limit) then return 0 end
if old then
  decrement_user(users, user_of(old))
end
redis.call('HSET', presence, client, entry)
if not old and redis.call('HLEN', presence) == 1 then
  redis.call('DEL', users)  -- Redis may have evicted the entries, but not the counts
end
redis.call('HINCRBY', users, user_of(entry), 1)
if not old and join ~= '' then
  redis.call(publish_command, pubsub_name, join)
end
return 1
