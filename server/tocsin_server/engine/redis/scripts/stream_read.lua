-- Read entries of the publish stream, within limits.
--   KEYS     stream
--   ARGV     id after which to read (empty: from the oldest entry), most entries, their bytes, the bytes of one entry
--   returns  {{id, size, fields}, …}: fields is {} if the entry has more bytes than one may have
local stream = KEYS[1]
local after, most, limit, entry_limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first = after == '' and '-' or '(' .. after

local READ_AT_ONCE = 8

local found, total = {}, 0
while #found < most and total < limit do
  local asked = math.min(READ_AT_ONCE, most - #found)
  local read = redis.call('XRANGE', stream, first, '+', 'COUNT', asked)
  for _, entry in ipairs(read) do
    if total >= limit then
      return found
    end
    local size = size_of(entry[2])
    if size > entry_limit then
      found[#found + 1] = {entry[1], size, {}}
    else
      total = total + size
      found[#found + 1] = {entry[1], size, entry[2]}
    end
    first = '(' .. entry[1]
  end
  if #read < asked then
    break
  end
end
return found
