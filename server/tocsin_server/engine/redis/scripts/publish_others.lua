-- The other cases of a publish (see publish.lua).

-- A version is outdated if it is comparable with the last one and not above it. A newer version is stored.
local function is_outdated()
  if not version or version == '0' then return false end
  local last = call('HMGET', meta, 'version', 'version_epoch')
  local is_comparable = version_epoch == '' or version_epoch == (last[2] or '')
  if is_comparable and last[1] and not is_below(last[1], version) then return true end
  call('HSET', meta, 'version', version, 'version_epoch', version_epoch)
  return false
end

local function remember(offset, epoch)
  if first_result then
    call('SET', first_result, offset .. ' ' .. epoch, 'PX', result_ttl_ms)
  end
  return {offset, epoch}
end

local function publish_stored()
  local offset, epoch, state = find_history(
    meta, history, epochs, meta_ttl_ms, fresh_epoch, trusts_absence, seen_offset, seen_epoch, '0')
  if state ~= 'stored' and may_grow == '0' then return {} end
  local keep = history_size .. ' ' .. history_ttl_ms .. ' ' .. meta_ttl_ms
  if state ~= 'stored' then
    store_top(meta, history, epochs, epoch, keep, trusts_absence)
  elseif trusts_absence == '0' then
    call('HSET', meta, 'keep', keep)
  end
  if is_outdated() then
    extend(meta, meta_ttl_ms)
  else
    offset = append(epoch, history_size, history_ttl_ms, meta_ttl_ms)
  end
  return remember(offset, epoch)
end

local function publish_unstored()
  local result = remember('0', '')
  call(publish_command, pubsub_name, head .. stamp .. ' 0 \n' .. body)
  return result
end

-- This node's configuration gives the channel no history, but that of another node may. Then its clients recover this
-- publication, or are told that they cannot.
local function publish_for_other_nodes()
  local top = call('HMGET', meta, 'offset', 'epoch', 'keep')
  local epoch, keep = top[2], top[3]
  if not epoch then
    call('DEL', epochs)  -- clients that have the initial epoch miss this publication
    return publish_unstored()
  elseif not keep then  -- a node of an older version stored the top
    call('HSET', meta, 'offset', '0', 'epoch', fresh_epoch)
    call('DEL', history)
    return publish_unstored()
  end
  local size, ttl_ms, kept_meta_ttl_ms = string.match(keep, '^(%d+) (%d+) (%d+)$')
  return remember(append(epoch, size, ttl_ms, kept_meta_ttl_ms), epoch)
end

if first_result then
  local result = call('GET', first_result)
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
