-- Read a channel's history and its top in one atomic step. A history without publications is not stored, unless a node
-- follows it (`keeps_epoch`) or its absence proves nothing.
--   KEYS     meta, history, and on a single server the keys of the initial epoch
--   ARGV     the fields of ReadArguments (engine/redis/broker.py), in this order; a test compares the two lists
--   returns  {offset, epoch, entries}
-- With a limit in bytes, entries are read a few at a time, and end before the one that would exceed it. There are at
-- least `least`.
local epochs, meta_ttl_ms, fresh_epoch, keep, trusts_absence, keeps_epoch, seen_offset, seen_epoch, seen_stamp,
  range, first, last, at_most, limit_bytes, least = unpack(ARGV)
local meta, history = KEYS[1], KEYS[2]

local READ_AT_ONCE = 8

local function read_within(limit, most)
  local entries, size = {}, 0
  while #entries < most do
    local asked = math.min(READ_AT_ONCE, most - #entries)
    local read = redis.call(range, history, first, last, 'COUNT', asked)
    for _, entry in ipairs(read) do
      size = size + #entry[2][2]
      if size > limit and #entries >= tonumber(least) then
        return entries
      end
      entries[#entries + 1] = entry
      first = '(' .. entry[1]
    end
    if #read < asked then
      break
    end
  end
  return entries
end

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
elseif limit_bytes ~= '' then
  return {offset, epoch, read_within(tonumber(limit_bytes), tonumber(at_most) or math.huge)}
elseif at_most == '' then
  return {offset, epoch, redis.call(range, history, first, last)}
end
return {offset, epoch, redis.call(range, history, first, last, 'COUNT', at_most)}
