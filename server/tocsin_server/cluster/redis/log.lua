-- Before the scripts about logs: offsets and versions are decimal texts, since Lua's numbers are exact to 2^53 only.

local function is_below(a, b)
  return #a < #b or (#a == #b and a < b)
end

-- Open a channel's log: its top as offset and epoch. It begins anew, in the epoch `fresh`, on its first touch, and where
-- it is behind what the caller has seen of the same epoch: then Redis lost its end, and offsets would come twice.
--
-- A full Redis refuses a script's commands that take memory until the first that changes something. So here and below
-- those that take memory come first: either a script is refused as a whole, or all of it is done.
local function open(meta, log, fresh, known_offset, known_epoch)
  local top = redis.call('HMGET', meta, 'offset', 'epoch')
  local offset, epoch = top[1], top[2]
  if not epoch or (epoch == known_epoch and is_below(offset, known_offset)) then
    offset, epoch = '0', fresh
    redis.call('HSET', meta, 'offset', offset, 'epoch', epoch)
    redis.call('HDEL', meta, 'version', 'version_epoch')
    redis.call('DEL', log)
  end
  return offset, epoch
end
