-- Remove sessions of an incarnation, each with the events that say its end. A session that is gone is left out.
--   KEYS     those of the event log, the parts, those of the incarnation
--   ARGV     PUBLISH or SPUBLISH, pub/sub name; then for each session: client, part, number of events, events
--   returns  how many sessions were removed
local sessions, removed, i = KEYS[#KEYS - 2], 0, 3
redis.call('HDEL', sessions, '')  -- lets a full Redis run the next commands
while i <= #ARGV do
  local client, part, count = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if redis.call('HDEL', sessions, client) == 1 then
    removed = removed + 1
    for event = i + 3, i + 2 + count do append(part, ARGV[event]) end
  end
  i = i + 3 + count
end
if removed > 0 then redis.call(ARGV[1], ARGV[2], '') end
return removed
