-- Publish a message. If the channel keeps history, also store the message and give it an offset.
--   KEYS     meta, history, and the result of the idempotency key if there is one
--   ARGV     the fields of PublishArguments (engine/redis/broker.py), in this order; a test compares the two lists
--   returns  {offset, epoch}
local publish_command, pubsub_name, head, body, result_ttl_ms, history_size, history_ttl_ms, meta_ttl_ms,
  fresh_epoch, seen_offset, seen_epoch, stamp, version, version_epoch = unpack(ARGV)
local meta, history, first_result = KEYS[1], KEYS[2], KEYS[3]

-- A version is outdated if it is comparable with the last one and not above it. A newer version is stored.
local function is_outdated()
  if version == '0' then return false end
  local last = redis.call('HMGET', meta, 'version', 'version_epoch')
  local is_comparable = version_epoch == '' or version_epoch == (last[2] or '')
  if is_comparable and last[1] and not is_below(last[1], version) then return true end
  redis.call('HSET', meta, 'version', version, 'version_epoch', version_epoch)
  return false
end

local function append()
  local offset, epoch = open_history(meta, history, fresh_epoch, seen_offset, seen_epoch, '0')
  if not is_outdated() then
    offset = string.format('%.0f', redis.call('HINCRBY', meta, 'offset', 1))
    redis.call('XADD', history, 'MAXLEN', history_size, offset .. '-' .. stamp, '1', body)
    redis.call('PEXPIRE', history, history_ttl_ms)
    redis.call(publish_command, pubsub_name, head .. offset .. ' ' .. epoch .. '\n' .. body)
  end
  redis.call('PEXPIRE', meta, meta_ttl_ms)
  return offset, epoch
end

local function remember(offset, epoch)
  if result_ttl_ms ~= '0' then
    redis.call('SET', first_result, offset .. ' ' .. epoch, 'PX', result_ttl_ms)
  end
  return {offset, epoch}
end

if result_ttl_ms ~= '0' then
  local result = redis.call('GET', first_result)
  if result then
    return {string.match(result, '^(%d+) (.*)$')}
  end
end
if history_size ~= '0' then
  return remember(append())
end
-- Without history, head is the complete head of the message.
local result = remember('0', '')
redis.call(publish_command, pubsub_name, head .. body)
return result
