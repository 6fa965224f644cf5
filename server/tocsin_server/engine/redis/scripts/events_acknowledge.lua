-- Note up to which entry a subscriber has the events of a part, and remove those that all subscribers have.
--   KEYS     those of the event log, the parts
--   ARGV     incarnation, part, subscriber, first entry, last entry, retention (ms)
--   returns  done, claim (the incarnation has no claim), or gap (an earlier event is not acknowledged)
local incarnation, part, subscriber, first, last, retention_ms = unpack(ARGV)
local field, key = part .. ':' .. subscriber, part_key(part)

local function is_below(entry, other)
  local ms, number = string.match(entry, '^(%d+)-(%d+)$')
  local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms < other_ms or (ms == other_ms and tonumber(number) < tonumber(other_number))
end

if redis.call('HGET', claims, field) ~= incarnation then return 'claim' end
local position = redis.call('HGET', positions, field) or '0-0'
if not is_below(position, last) then return 'done' end
local oldest = redis.call('XRANGE', key, '(' .. position, '+', 'COUNT', 1)[1]
if oldest and is_below(oldest[1], first) then return 'gap' end
redis.call('HDEL', positions, '')  -- lets a full Redis run the next commands
redis.call('HSET', positions, field, last)

local now = now_ms()
local least = last
note_reading(subscriber, now)
local all = redis.call('HGETALL', subscribers)
for i = 1, #all, 2 do
  if tonumber(all[i + 1]) < now - tonumber(retention_ms) then
    redis.call('HDEL', subscribers, all[i])
  else
    local other = redis.call('HGET', positions, part .. ':' .. all[i]) or '0-0'
    if is_below(other, least) then least = other end
  end
end
local ms, number = string.match(least, '^(%d+)-(%d+)$')
redis.call('XTRIM', key, 'MINID', ms .. '-' .. string.format('%.0f', tonumber(number) + 1))
return 'done'
