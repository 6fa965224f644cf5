-- Claim a part for a subscriber, or release the claim.
--   KEYS     those of the event log, the parts
--   ARGV     incarnation, part, subscriber, 1 to claim or 0 to release
--   returns  1 if the incarnation has the claim now, else 0
local incarnation, part, subscriber, wants = unpack(ARGV)
local field, now = part .. ':' .. subscriber, now_ms()
local holder = redis.call('HGET', claims, field)
if wants == '0' then
  if holder == incarnation then redis.call('HDEL', claims, field) end
  return 0
end
if not is_live(redis.call('HGET', nodes, incarnation)) then return 0 end
redis.call('HDEL', claims, '')  -- lets a full Redis run the next commands
redis.call('HSET', readers, incarnation .. ' ' .. subscriber, string.format('%.0f', now))
if holder ~= incarnation then
  if holder and is_live(redis.call('HGET', nodes, holder)) then return 0 end
  if surplus_of(incarnation, subscriber, now) >= 0 then return 0 end
end
redis.call('HSET', claims, field, incarnation)
note_reading(subscriber, now)
return 1
