-- Functions for the scripts that use presence. An entry is the MessagePack array
-- [lease, is announced, [user, client, conn_info, chan_info]].

local function user_of(entry)
  return cmsgpack.unpack(entry)[3][1]
end

local function decrement_user(users, user)
  if redis.call('HINCRBY', users, user, -1) <= 0 then
    redis.call('HDEL', users, user)
  end
end
