-- Read a channel's history and its top in one atomic step. A history without publications is not stored, unless a node
-- follows it (`keeps_epoch`) or its absence proves nothing.
--   KEYS     meta, history, and on a single server the keys of the initial epoch
--   ARGV     the fields of ReadArguments (engine/redis/broker.py), in this order; a test compares the two lists
--   returns  {offset, epoch, entries}
local epochs, meta_ttl_ms, fresh_epoch, keep, trusts_absence, keeps_epoch, seen_offset, seen_epoch, seen_stamp,
  range, first, last, at_most = unpack(ARGV)
local meta, history = KEYS[1], KEYS[2]

local offset, epoch, state = find_history(
  meta, history, epochs, meta_ttl_ms, fresh_epoch, trusts_absence, seen_offset, seen_epoch, seen_stamp)
if state == 'new' or (state == 'initial' and keeps_epoch == '1') then
  store_top(meta, history, epochs, epoch, keep, trusts_absence)
elseif state == 'initial' then
  return {offset, epoch, {}}
elseif trusts_absence == '0' then
  redis.call('HSET', meta, 'keep', keep)
end
if offset == '0' then
  extend(meta, math.min(tonumber(meta_ttl_ms), EMPTY_MS))
else
  extend(meta, meta_ttl_ms)
end
if range == '' then
  return {offset, epoch, {}}
elseif at_most == '' then
  return {offset, epoch, redis.call(range, history, first, last)}
end
return {offset, epoch, redis.call(range, history, first, last, 'COUNT', at_most)}
