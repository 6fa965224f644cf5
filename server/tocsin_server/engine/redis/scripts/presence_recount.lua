-- Count the users of a channel's presence again, from its entries. Needed after Redis lost one of the two hashes.
--   KEYS  presence, users
local counts = {}
for _, entry in ipairs(redis.call('HVALS', KEYS[1])) do
  local user = user_of(entry)
  if user then counts[user] = (counts[user] or 0) + 1 end
end
for user, count in pairs(counts) do
  redis.call('HSET', KEYS[2], user, count)
end
for _, user in ipairs(redis.call('HKEYS', KEYS[2])) do
  if not counts[user] then redis.call('HDEL', KEYS[2], user) end
end
