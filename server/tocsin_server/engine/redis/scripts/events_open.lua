-- Register a new incarnation of a node. If the log has lost data, tell it once.
--   KEYS     those of the event log, the parts of before and those that are configured, those of the incarnation
--   ARGV     incarnation, name of the node, the epoch that the node knows ('': none), an epoch that was never used,
--            1 if the node found that data was lost, `state_lost` ('': do not tell), number of parts
--            that is configured
--   returns  {epoch, number of parts}
local incarnation, name, known, fresh, has_lost, state_lost, parts = unpack(ARGV)
redis.call('HDEL', meta, '')  -- lets a full Redis run the next commands
local epoch = redis.call('HGET', meta, 'epoch')

local function begin_epoch()
  redis.call('DEL', occupied)  -- all channels are told again
  redis.call('HSET', meta, 'epoch', fresh, 'is_told', '0')
  epoch = fresh
end

if not epoch then
  begin_epoch()
elseif epoch == known and has_lost == '1' then
  begin_epoch()
end
if known ~= '' and epoch ~= known and redis.call('HGET', meta, 'is_told') ~= '1' then
  redis.call('HSET', meta, 'is_told', '1')
  if state_lost ~= '' then append(0, state_lost) end
end

-- Whether a part has events. With another number of parts, later events of a channel may be in another part than these,
-- and overtake them.
local function has_events(before)
  local given = #KEYS - FIRST_PART + 1 - 3
  if before > given then return true end
  for part = 0, before - 1 do
    if redis.call('XLEN', part_key(part)) > 0 then return true end
  end
  return false
end

local before = tonumber(redis.call('HGET', meta, 'parts') or 0)
if before == 0 or (before ~= tonumber(parts) and redis.call('HLEN', nodes) == 0 and not has_events(before)) then
  redis.call('HSET', meta, 'parts', parts)
end
redis.call('HSET', nodes, incarnation, 'live ' .. epoch .. ' ' .. name)
redis.call('HSET', batches, incarnation, 0)
return {epoch, redis.call('HGET', meta, 'parts')}
