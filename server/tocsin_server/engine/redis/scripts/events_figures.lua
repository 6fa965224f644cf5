-- Remove events that are too many or too old, and read the figures of the log.
--   KEYS     those of the event log, the parts
--   ARGV     size of a part, retention (ms)
--   returns  {number of events, milliseconds since the oldest was written, number of trimmed events}
local stored, oldest, now = 0, nil, now_ms()
for part = 0, #KEYS - FIRST_PART do
  trim(part, ARGV[1], ARGV[2])
  stored = stored + redis.call('XLEN', part_key(part))
  local first = redis.call('XRANGE', part_key(part), '-', '+', 'COUNT', 1)[1]
  if first then
    local written = tonumber(string.match(first[1], '^%d+'))
    oldest = math.min(oldest or written, written)
  end
end
return {stored, math.max(0, now - (oldest or now)), tonumber(redis.call('HGET', meta, 'trimmed') or 0)}
