-- Keep a revocation, and announce that there is a new one. Expired ones are removed when their number has doubled.
--   KEYS     revocations, latest revocations
--   ARGV     revocation, unix second at which it expires, PUBLISH or SPUBLISH, pub/sub name, length of the stream
local kept, latest = KEYS[1], KEYS[2]
local revocation, expire_at, publish_command, pubsub_name, length = unpack(ARGV)
local grace, first_prune = 60, 64  -- seconds by which the clocks of nodes may differ; entries

local now = tonumber(redis.call('TIME')[1])
local state = redis.call('HMGET', kept, 'last_expiry', 'prune_at')

if redis.call('HLEN', kept) >= tonumber(state[2] or first_prune) then
  local all = redis.call('HGETALL', kept)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == '{' and tonumber(all[i + 1]) + grace <= now then
      redis.call('HDEL', kept, all[i])
    end
  end
  redis.call('HSET', kept, 'prune_at', math.max(first_prune, 2 * redis.call('HLEN', kept)))
end

local last_expiry = math.max(tonumber(state[1] or 0), tonumber(expire_at))
redis.call('HSET', kept, revocation, expire_at, 'last_expiry', string.format('%.0f', last_expiry))
redis.call('XADD', latest, 'MAXLEN', length, '*', '1', revocation)
local left_ms = string.format('%.0f', math.max(grace, last_expiry + grace - now) * 1000)
redis.call('PEXPIRE', kept, left_ms)
redis.call('PEXPIRE', latest, left_ms)
redis.call(publish_command, pubsub_name, '')
