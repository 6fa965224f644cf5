-- Remove an incarnation, and its claims. Unless it is dead, only if it has neither sessions nor channels.
--   KEYS     those of the event log, the parts, those of the incarnation
--   ARGV     incarnation, 1 if it is dead
--   returns  1 if it is removed, else 0
local sessions, channels = KEYS[#KEYS - 2], KEYS[#KEYS - 1]
local function exists(key) return redis.call('PTTL', key) ~= -2 end
if ARGV[2] == '0' and (exists(sessions) or exists(channels)) then return 0 end
redis.call('DEL', sessions, channels)
redis.call('HDEL', nodes, ARGV[1])
redis.call('HDEL', batches, ARGV[1])
local all = redis.call('HGETALL', claims)
for i = 1, #all, 2 do
  if all[i + 1] == ARGV[1] then redis.call('HDEL', claims, all[i]) end
end
all = redis.call('HKEYS', readers)
for _, field in ipairs(all) do
  if string.match(field, '^%S+') == ARGV[1] then redis.call('HDEL', readers, field) end
end
return 1
