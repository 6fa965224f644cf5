-- Take the entries of a dead lease out of a channel's presence, and announce their leaving where their joining was
-- announced, unless the user is there with another connection. Nameless users are not each other.
--   KEYS  presence, users
--   ARGV  lease, PUBLISH or SPUBLISH, name of the announcements, head of a leave
-- Answers how many entries there were.
local presence, users = KEYS[1], KEYS[2]
local lease, publish, announcements, head = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local all = redis.call('HGETALL', presence)
local gone, here = {}, {}
for i = 1, #all, 2 do
  local entry = cmsgpack.unpack(all[i + 1])
  if entry[1] == lease then
    gone[#gone + 1] = {client = all[i], is_announced = entry[2] == 1, info = entry[3]}
  else
    here[entry[3][1]] = true
  end
end
for _, entry in ipairs(gone) do
  local user = entry.info[1]
  redis.call('HDEL', presence, entry.client)
  discount(users, user)
  if entry.is_announced and (user == '' or not here[user]) then
    redis.call(publish, announcements, head .. cmsgpack.pack(entry.info))
  end
end
return #gone
