-- Move an entry of the publish stream to the failures, in one atomic step. The first XDEL lets a full Redis run the
-- others, which take no memory together.
--   KEYS     stream, failures
--   ARGV     id, reason, most failures, the bytes of one entry
--   returns  1 if there was such an entry, else 0
local stream, failures = KEYS[1], KEYS[2]
local id, reason, most, entry_limit = unpack(ARGV)

local MOST_WORDS = 200  -- Lua cannot pass thousands

local entry = redis.call('XRANGE', stream, id, id)[1]
if not entry then
  return 0
end
local fields = entry[2]
if #fields > MOST_WORDS or size_of(fields) > tonumber(entry_limit) then
  fields = {}
end
redis.call('XDEL', stream, '0-1')
redis.call('XADD', failures, 'MAXLEN', most, '*', 'entry', id, 'failure', reason, unpack(fields))
redis.call('XDEL', stream, id)
return 1
