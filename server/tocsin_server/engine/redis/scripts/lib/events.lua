-- The event log (see engine/redis/event_log.py). Its scripts have these keys, and then the streams of all parts. Scripts
-- for one incarnation of a node have its three keys at the end.
local meta, nodes, batches, occupied, positions, claims, subscribers, readers = unpack(KEYS, 1, 8)
local FIRST_PART = 9

local function part_key(part) return KEYS[FIRST_PART + tonumber(part)] end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function append(part, body) redis.call('XADD', part_key(part), '*', 'e', body) end

local function count_trimmed(count)
  if count > 0 and redis.call('HLEN', subscribers) > 0 then
    redis.call('HINCRBY', meta, 'trimmed', count)
  end
end

-- Remove the oldest events of a part: those beyond its size, and those beyond the retention.
local function trim(part, size, retention_ms)
  local key, count = part_key(part), 0
  if redis.call('XLEN', key) > tonumber(size) then
    count = redis.call('XTRIM', key, 'MAXLEN', size)
  end
  local oldest = string.format('%.0f', math.max(0, now_ms() - tonumber(retention_ms)))
  count_trimmed(count + redis.call('XTRIM', key, 'MINID', oldest))
end

-- Note that an incarnation no longer has subscribers in a channel. Tell it if no other one has. Returns 1 if it had.
local function vacate(channels, channel, part, body)
  if redis.call('SREM', channels, channel) == 0 then return 0 end
  if redis.call('HINCRBY', occupied, channel, -1) <= 0 then
    redis.call('HDEL', occupied, channel)
    if body ~= '' then append(part, body) end
  end
  return 1
end

local function epoch_of(state) return string.match(state, '^%a+ (%S+)') end
local function is_live(state) return state and string.sub(state, 1, 5) == 'live ' end

-- Note that a subscriber reads. One that has not read for the retention counts as gone.
local function note_reading(subscriber, now)
  redis.call('HSET', subscribers, subscriber, string.format('%.0f', now))
end
