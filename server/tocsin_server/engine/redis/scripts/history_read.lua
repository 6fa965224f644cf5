-- Read a channel's history and its top in one atomic step.
--   KEYS     meta, history
--   ARGV     time to live of meta (ms), fresh epoch, seen offset, seen epoch, seen stamp,
--            XRANGE or XREVRANGE or '' (only the top), from, to, count ('': all), bytes ('': no limit)
--   returns  {offset, epoch, entries}
-- With a limit in bytes, entries are read a few at a time, and end before the one that would exceed it. There
-- is at least one.
local READ_AT_ONCE = 8

local meta_ttl_ms, fresh_epoch, seen_offset, seen_epoch, seen_stamp, range, from, to, count, limit_bytes =
  unpack(ARGV)
local meta, history = KEYS[1], KEYS[2]

local function read_within(limit, most)
  local entries, size = {}, 0
  while #entries < most do
    local asked = math.min(READ_AT_ONCE, most - #entries)
    local read = redis.call(range, history, from, to, 'COUNT', asked)
    for _, entry in ipairs(read) do
      size = size + #entry[2][2]
      if size > limit and #entries > 0 then
        return entries
      end
      entries[#entries + 1] = entry
      from = '(' .. entry[1]
    end
    if #read < asked then
      break
    end
  end
  return entries
end

local offset, epoch = open_history(meta, history, fresh_epoch, seen_offset, seen_epoch, seen_stamp)
redis.call('PEXPIRE', meta, meta_ttl_ms)
if range == '' then
  return {offset, epoch, {}}
elseif limit_bytes ~= '' then
  return {offset, epoch, read_within(tonumber(limit_bytes), tonumber(count) or math.huge)}
elseif count == '' then
  return {offset, epoch, redis.call(range, history, from, to)}
end
return {offset, epoch, redis.call(range, history, from, to, 'COUNT', count)}
