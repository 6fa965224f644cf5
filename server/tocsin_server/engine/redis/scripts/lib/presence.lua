-- Functions for the scripts that use presence. An entry is the MessagePack array
-- [lease, is announced, [user, client, conn_info, chan_info]].

-- Decode an entry. Returns nil if it has another version of the format: such an entry belongs to no lease here.
local function decode(entry)
  local is_readable, fields = pcall(cmsgpack.unpack, entry)
  if is_readable and type(fields) == 'table' and type(fields[3]) == 'table' then return fields end
end

local function user_of(entry)
  local fields = decode(entry)
  return fields and fields[3][1]
end

local function decrement_user(users, user)
  if user and redis.call('HINCRBY', users, user, -1) <= 0 then
    redis.call('HDEL', users, user)
  end
end
