-- Before the scripts about logs: offsets and versions are decimal texts, since Lua's numbers are exact to 2^53 only.

local function is_below(a, b)
  return #a < #b or (#a == #b and a < b)
end

-- Whether the log has another publication at an offset than the one with this stamp ('0': which it was is not known).
local function is_another(log, offset, stamp)
  if stamp == '0' then return false end
  local entry = redis.call('XRANGE', log, offset, offset)[1]
  return entry and entry[1] ~= offset .. '-' .. stamp
end

-- Open a channel's log: its top as offset and epoch. It begins anew, in the epoch `fresh`, on its first touch, and where
-- it is behind what the caller has seen of the same epoch, or has something else there: then Redis lost its end, and
-- offsets would come twice, or did.
--
-- A full Redis refuses a script's commands that take memory until the first that changes something. So here and below
-- those that take memory come first: either a script is refused as a whole, or all of it is done.
local function open(meta, log, fresh, known_offset, known_epoch, known_stamp)
  local top = redis.call('HMGET', meta, 'offset', 'epoch')
  local offset, epoch = top[1], top[2]
  local is_other = epoch and epoch == known_epoch
    and (is_below(offset, known_offset) or is_another(log, known_offset, known_stamp))
  if not epoch or is_other then
    offset, epoch = '0', fresh
    redis.call('HSET', meta, 'offset', offset, 'epoch', epoch)
    redis.call('HDEL', meta, 'version', 'version_epoch')
    redis.call('DEL', log)
  end
  return offset, epoch
end
