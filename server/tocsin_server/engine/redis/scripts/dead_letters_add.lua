-- Keep dead letters, and remove the oldest ones above a number or an age.
--   KEYS     dead letters
--   ARGV     limit, time to live in ms, dead letter …
--   returns  how many were removed because of the limit
local letters, limit, ttl = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('XTRIM', letters, 'MINID', string.format('%.0f', math.max(0, now - ttl)))
for i = 3, #ARGV do
  redis.call('XADD', letters, '*', '1', ARGV[i])
end
local above = math.max(0, redis.call('XLEN', letters) - limit)
if above > 0 then
  redis.call('XTRIM', letters, 'MAXLEN', limit)
end
redis.call('PEXPIRE', letters, string.format('%.0f', ttl))
return above
