-- Take or renew the claim to read the publish stream, or release it. DEL also lets a full Redis run SET.
--   KEYS     claim
--   ARGV     uid of the node, time to live in ms (0: release)
--   returns  1 if the node has, or had, the claim, else 0
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '0' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
