-- Publish a message. If the channel keeps history, also store the message and give it an offset.
--   KEYS     meta, history, and the result of the idempotency key if there is one. Those of the initial epoch (`epochs`)
--            are seldom used, and not declared: while the slot of a channel moves, a cluster rejects a script whose
--            declared keys are not all on one server
--   ARGV     ARGUMENTS (engine/redis/publish_call.py), in this order; a test compares the two lists
--   returns  {offset, epoch}, or {} if the publication needs a new key and `may_grow` is '0'
-- This file has the frequent case, in which the top is stored, and comes first: Lua makes the functions of the files
-- after it (lib/history, publish_others) with each run.
local pubsub_name, epochs, publish_command, head, history_size, history_ttl_ms, meta_ttl_ms, trusts_absence, may_grow,
  body, stamp, fresh_epoch, seen_offset, seen_epoch, version, version_epoch, result_ttl_ms = unpack(ARGV)
local meta, history, first_result = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call

-- Append to the history. It expires `ttl_ms` from now, and the top no sooner than `top_ttl_ms` from now: another node may
-- have other options. Both live up to a 64th longer, at most a second, so that not each publication has to extend them.
local function append(epoch, size, ttl_ms, top_ttl_ms)
  local offset = string.format('%.0f', call('HINCRBY', meta, 'offset', 1))
  call('XADD', history, 'MAXLEN', size, offset .. '-' .. stamp, '1', body)
  local margin = call('PTTL', history) - ttl_ms
  if margin < 0 or margin > 1000 then
    call('PEXPIRE', history, string.format('%.0f', ttl_ms + math.min(math.floor(ttl_ms / 64), 1000)))
  end
  if call('PTTL', meta) - top_ttl_ms < 0 then
    call('PEXPIRE', meta, string.format('%.0f', top_ttl_ms + math.min(math.floor(top_ttl_ms / 64), 1000)))
  end
  call(publish_command, pubsub_name, head .. stamp .. ' ' .. offset .. ' ' .. epoch .. '\n' .. body)
  return offset
end

if history_size ~= '0' and trusts_absence == '1' and (not version or version == '0') then
  local result = first_result and call('GET', first_result)
  if result then
    return {string.match(result, '^(%d+) (.*)$')}
  end
  local top = call('HMGET', meta, 'offset', 'epoch')
  local offset, epoch = top[1], top[2]
  -- find_history says when a stored top does not count: if it is below the seen position in the same epoch.
  local is_not_below = epoch and (#offset > #seen_offset or (#offset == #seen_offset and offset >= seen_offset))
  if epoch and (is_not_below or epoch ~= seen_epoch) then
    offset = append(epoch, history_size, history_ttl_ms, meta_ttl_ms)
    if first_result then
      call('SET', first_result, offset .. ' ' .. epoch, 'PX', result_ttl_ms)
    end
    return {offset, epoch}
  end
end
