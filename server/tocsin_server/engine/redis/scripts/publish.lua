-- Publish a message. If the channel keeps history, also store the message and give it an offset.
--   KEYS     meta, history, the result of the idempotency key if there is one, and on a single server the keys of the
--            initial epoch
--   ARGV     the fields of PublishArguments (engine/redis/broker.py), in this order; a test compares the two lists
--   returns  {offset, epoch}, or {} if the publication needs a new key and `may_grow` is '0'
local publish_command, pubsub_name, head, body, result_ttl_ms, history_size, history_ttl_ms, meta_ttl_ms,
  fresh_epoch, seen_offset, seen_epoch, stamp, version, version_epoch, epochs, trusts_absence, may_grow = unpack(ARGV)
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

local function remember(offset, epoch)
  if result_ttl_ms ~= '0' then
    redis.call('SET', first_result, offset .. ' ' .. epoch, 'PX', result_ttl_ms)
  end
  return {offset, epoch}
end

local function append(epoch, size, ttl_ms)
  local offset = string.format('%.0f', redis.call('HINCRBY', meta, 'offset', 1))
  redis.call('XADD', history, 'MAXLEN', size, offset .. '-' .. stamp, '1', body)
  redis.call('PEXPIRE', history, ttl_ms)
  redis.call(publish_command, pubsub_name, head .. offset .. ' ' .. epoch .. '\n' .. body)
  return offset
end

local function publish_stored()
  local offset, epoch, state = find_history(
    meta, history, epochs, meta_ttl_ms, fresh_epoch, trusts_absence, seen_offset, seen_epoch, '0')
  if state ~= 'stored' and may_grow == '0' then return {} end
  local keep = history_size .. ' ' .. history_ttl_ms .. ' ' .. meta_ttl_ms
  if state ~= 'stored' then
    store_top(meta, history, epochs, epoch, keep, trusts_absence)
  elseif trusts_absence == '0' then
    redis.call('HSET', meta, 'keep', keep)
  end
  if not is_outdated() then
    offset = append(epoch, history_size, history_ttl_ms)
  end
  extend(meta, meta_ttl_ms)
  return remember(offset, epoch)
end

local function publish_unstored()
  local result = remember('0', '')
  redis.call(publish_command, pubsub_name, head .. '0 \n' .. body)
  return result
end

-- This node's configuration gives the channel no history, but that of another node may. Then its clients recover this
-- publication, or are told that they cannot.
local function publish_for_other_nodes()
  local top = redis.call('HMGET', meta, 'offset', 'epoch', 'keep')
  local offset, epoch, keep = top[1], top[2], top[3]
  if not epoch then
    redis.call('DEL', epochs)  -- clients that have the initial epoch miss this publication
    return publish_unstored()
  elseif not keep then  -- a node of an older version stored the top
    redis.call('HSET', meta, 'offset', '0', 'epoch', fresh_epoch)
    redis.call('DEL', history)
    return publish_unstored()
  end
  local size, ttl_ms, kept_meta_ttl_ms = string.match(keep, '^(%d+) (%d+) (%d+)$')
  local result = append(epoch, size, ttl_ms)
  if offset == '0' then extend(meta, kept_meta_ttl_ms) end
  return remember(result, epoch)
end

if result_ttl_ms ~= '0' then
  local result = redis.call('GET', first_result)
  if result then
    return {string.match(result, '^(%d+) (.*)$')}
  end
end
if history_size ~= '0' then
  return publish_stored()
elseif trusts_absence == '0' then
  return publish_for_other_nodes()
end
return publish_unstored()
