-- Mark an incarnation as dead: its node can no longer write for it.
--   KEYS     those of the event log, the parts, those of the incarnation
--   ARGV     incarnation, how long the node may find it out (ms)
--   returns  the name of the node, or a false value if the incarnation is not known
local state = redis.call('HGET', nodes, ARGV[1])
if not state then return false end
redis.call('HDEL', nodes, '')  -- lets a full Redis run the next commands
if is_live(state) then
  redis.call('HSET', nodes, ARGV[1], 'dead' .. string.sub(state, 5))
  redis.call('SET', KEYS[#KEYS], redis.call('HGET', batches, ARGV[1]) or '0', 'PX', ARGV[2])
end
return string.match(state, '^%a+ %S+ (.*)$')
