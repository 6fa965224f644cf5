-- Functions for the scripts that use histories. Offsets and versions are decimal strings, because Lua's numbers are
-- exact only up to 2^53.
--
-- A full Redis rejects the commands of a script that allocate memory, until the script's first write. So here and in the
-- other scripts, the commands that allocate memory come first: a script is rejected completely or runs completely. The
-- exceptions are bounded: they begin with a DEL, after which nothing is rejected.

local EMPTY_MS = 60000  -- how long the epoch of a history without publications is stored after its last use

local function is_below(a, b)
  return #a < #b or (#a == #b and a < b)
end

-- Return whether the history holds a publication at `offset` whose stamp is not `stamp` ('0': the stamp is unknown).
local function is_another(history, offset, stamp)
  if stamp == '0' then return false end
  local entry = redis.call('XRANGE', history, offset, offset)[1]
  return entry and entry[1] ~= offset .. '-' .. stamp
end

local function get_or_set(key, value, ...)
  local found = redis.call('GET', key)
  if found then return found end
  redis.call('DEL', key)  -- so that a full Redis does not reject the next command
  redis.call('SET', key, value, ...)
  return value
end

-- Return the initial epoch: that of every history without publications. Nothing is stored for such a history.
-- The second half lives as long as the top of an unused history does. So when a top has expired, the initial epoch is
-- another one than that in which the history began.
local function initial_epoch(epochs, meta_ttl_ms, fresh_epoch)
  return get_or_set(epochs, string.sub(fresh_epoch, 1, 6))
    .. get_or_set(epochs .. ':' .. meta_ttl_ms, string.sub(fresh_epoch, 7), 'PX', meta_ttl_ms)
end

-- Return the top of a history as offset and epoch, and whether it is 'stored', 'initial' or 'new'. Redis has no top of a
-- history that is initial or new. A history starts over in another epoch
--   1. when its top is below the position that the calling node has seen in the same epoch, or
--   2. when it holds another publication at that position.
-- In both cases, Redis lost the end of the history. Continuing it would use offsets twice in one epoch.
-- If `trusts_absence` is '0', a missing top does not prove that there were no publications. Then the history is new.
local function find_history(
  meta, history, epochs, meta_ttl_ms, fresh_epoch, trusts_absence, seen_offset, seen_epoch, seen_stamp)
  local top = redis.call('HMGET', meta, 'offset', 'epoch')
  local offset, epoch = top[1], top[2]
  if epoch then
    if epoch ~= seen_epoch
      or not (is_below(offset, seen_offset) or is_another(history, seen_offset, seen_stamp)) then
      return offset, epoch, 'stored'
    end
    if epoch == initial_epoch(epochs, meta_ttl_ms, fresh_epoch) then redis.call('DEL', epochs) end
  elseif trusts_absence == '1' then
    epoch = initial_epoch(epochs, meta_ttl_ms, fresh_epoch)
    if epoch ~= seen_epoch or seen_offset == '0' then return '0', epoch, 'initial' end
    redis.call('DEL', epochs)
    return '0', initial_epoch(epochs, meta_ttl_ms, fresh_epoch), 'initial'
  end
  return '0', fresh_epoch, 'new'
end

-- Store the top of a history that is initial or new. `keep` is what a node whose configuration gives the channel no
-- history needs to append to it: the size of the history and the times to live of history and top.
local function store_top(meta, history, epochs, epoch, keep, trusts_absence)
  redis.call('HSET', meta, 'offset', '0', 'epoch', epoch, 'keep', keep)
  redis.call('HDEL', meta, 'version', 'version_epoch')
  redis.call('DEL', history)
  if trusts_absence == '0' then redis.call('DEL', epochs) end
end

-- Extend the time to live of a key, but never shorten it: another node may have other options.
local function extend(key, ttl_ms)
  if redis.call('PTTL', key) < tonumber(ttl_ms) then redis.call('PEXPIRE', key, ttl_ms) end
end
