-- Read a channel's history and its top in one atomic step.
--   KEYS     meta, history
--   ARGV     time to live of meta (ms), fresh epoch, seen offset, seen epoch, seen stamp,
--            XRANGE or XREVRANGE or '' (only the top), from, to, count ('': all)
--   returns  {offset, epoch, entries}
local meta_ttl_ms, fresh_epoch, seen_offset, seen_epoch, seen_stamp, range, from, to, count = unpack(ARGV)
local meta, history = KEYS[1], KEYS[2]

local offset, epoch = open_history(meta, history, fresh_epoch, seen_offset, seen_epoch, seen_stamp)
redis.call('PEXPIRE', meta, meta_ttl_ms)
if range == '' then
  return {offset, epoch, {}}
elseif count == '' then
  return {offset, epoch, redis.call(range, history, from, to)}
end
return {offset, epoch, redis.call(range, history, from, to, 'COUNT', count)}
