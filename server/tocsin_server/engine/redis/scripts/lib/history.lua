-- Functions for the scripts that use histories. Offsets and versions are decimal strings, because Lua's numbers are
-- exact only up to 2^53.

local function is_below(a, b)
  return #a < #b or (#a == #b and a < b)
end

-- Return whether the history holds a publication at `offset` whose stamp is not `stamp` ('0': the stamp is unknown).
local function is_another(history, offset, stamp)
  if stamp == '0' then return false end
  local entry = redis.call('XRANGE', history, offset, offset)[1]
  return entry and entry[1] ~= offset .. '-' .. stamp
end

-- Return the top of a history as offset and epoch. The history starts over, in the epoch `fresh_epoch`,
--   1. when it is accessed for the first time,
--   2. when its top is below the position that the calling node has seen in the same epoch, or
--   3. when it holds another publication at that position.
-- In cases 2 and 3, Redis lost the end of the history. Continuing it would use offsets twice in one epoch.
--
-- A full Redis rejects the commands of a script that allocate memory, until the script's first write. So here and in the
-- other scripts, the commands that allocate memory come first: a script is rejected completely or runs completely.
local function open_history(meta, history, fresh_epoch, seen_offset, seen_epoch, seen_stamp)
  local top = redis.call('HMGET', meta, 'offset', 'epoch')
  local offset, epoch = top[1], top[2]
  local has_lost_end = epoch and epoch == seen_epoch
    and (is_below(offset, seen_offset) or is_another(history, seen_offset, seen_stamp))
  if not epoch or has_lost_end then
    offset, epoch = '0', fresh_epoch
    redis.call('HSET', meta, 'offset', offset, 'epoch', epoch)
    redis.call('HDEL', meta, 'version', 'version_epoch')
    redis.call('DEL', history)
  end
  return offset, epoch
end
