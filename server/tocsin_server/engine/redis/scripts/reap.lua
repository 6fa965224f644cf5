-- Remove the entries of a dead lease from a channel's presence. Publish a leave for each entry whose join was published,
-- unless the user has another connection in the channel. Anonymous users (empty id) never count as the same user.
--   KEYS     presence, users
--   ARGV     lease, PUBLISH or SPUBLISH, pub/sub name of the channel, head of a leave
--   returns  the number of removed entries
local presence, users = KEYS[1], KEYS[2]
local lease, publish_command, pubsub_name, head = unpack(ARGV)

local all = redis.call('HGETALL', presence)
local dead, present_users = {}, {}
for i = 1, #all, 2 do
  local entry = decode(all[i + 1])
  if entry and entry[1] == lease then
    dead[#dead + 1] = {client = all[i], is_announced = entry[2] == 1, info = entry[3]}
  elseif entry then
    present_users[entry[3][1]] = true
  end
end
for _, entry in ipairs(dead) do
  local user = entry.info[1]
  redis.call('HDEL', presence, entry.client)
  decrement_user(users, user)
  if entry.is_announced and (user == '' or not present_users[user]) then
    redis.call(publish_command, pubsub_name, head .. cmsgpack.pack(entry.info))
  end
end
return #dead
